"""What `nixos_cluster` refuses before it evaluates anything, and what its machines are by default."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import EvalError, FlakeError, MachineError, SettingsError
from pytest_nixos.local.timing import Deadline, Recall, Recalled, poll
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.plugin.machines.cluster import ClusterLaunch, boot_together

OWN, OTHER = FlakeRef("/own"), FlakeRef("/other")


class Asked(Exception):
    """Stands for an evaluation: with which backend it was asked for."""


class FakeFlake:
    """Tells what it is asked."""

    def __init__(self, ref: FlakeRef, salt: str) -> None:
        self._ref = ref
        self._salt = salt

    def host_names(self) -> tuple[str, ...]:
        return ("a", "b") if self._ref == OWN else ("b", "c")

    def known(self, _name: str, **_more: object) -> None:
        return None

    def fetch(self) -> None:
        return None

    def evaluate(self, name: str, *, backend: str, **_more: object) -> Any:
        if name == "broken":
            raise EvalError("broken: does not evaluate", remedy="mend it")
        raise Asked(name, str(backend), self._ref.url, *([self._salt] if self._salt else []))


class FakeFlakes:
    """Has each of them."""

    nix = SimpleNamespace(settings=SimpleNamespace(cache=None))

    def __init__(self, salt: str = "") -> None:
        self._salt = salt

    def of(self, ref: FlakeRef) -> FakeFlake:
        return FakeFlake(ref, self._salt)

    def salted(self, salt: str) -> FakeFlakes:
        return FakeFlakes(salt)


class FakeCluster:
    """Stands for a running one, that knows its members."""

    def __init__(self, members: Mapping[str, HostRef]) -> None:
        self.members = {name: str(ref) for name, ref in members.items()}


class Remembering(ClusterLaunch):
    """Starts nothing, and tells what it would have."""

    def _start(self, members: Mapping[str, HostRef], *_more: object) -> Any:
        return FakeCluster(members)


class Silent:
    """Progress that nobody sees."""

    def speaking(self) -> Silent:
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_exc: object) -> None:
        return None

    def say(self, _text: str) -> None:
        return None


def launch(backend: BackendName | None = None) -> ClusterLaunch:
    return _launch(ClusterLaunch, backend)


def _launch(kind: type[ClusterLaunch], backend: BackendName | None = None) -> ClusterLaunch:
    run = {"a": OWN, "b": OTHER, "c": OTHER, "/third#d": FlakeRef("/third")}
    return kind(
        cast("Any", FakeFlakes()),
        cast("Any", SimpleNamespace(backend=backend, real_secrets_key=None)),
        own=OWN,
        hosts={key: HostRef(flake, key.rpartition("#")[2]) for key, flake in run.items()},
        cwd=Path("/somewhere/else"),
        progress=cast("Any", Silent()),
        config=None,
    )


def members(*words: str) -> dict[str, str]:
    with _launch(Remembering) as started:
        return cast("FakeCluster", started.start(*words, backend="vm")).members


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("a", "b"), {"a": "/own#a", "b": "/own#b"}),
        (("a", "/other#b"), {"a": "/own#a", "b": "/other#b"}),
        (("b", "/other#b"), {"b": "/own#b", "/other#b": "/other#b"}),
        (("a", "../other#b"), {"a": "/own#a", "b": "/somewhere/other#b"}),
        (("a", "c"), {"a": "/own#a", "c": "/other#c"}),
        (("a", "/own#a"), {"a": "/own#a"}),
        (("a", "#b"), {"a": "/own#a", "b": "/own#b"}),
        (("a", "/third#d"), {"a": "/own#a", "d": "/third#d"}),
        (("a", "nowhere"), {"a": "/own#a", "nowhere": "/own#nowhere"}),
    ],
)
def test_whose_hosts_they_are(words: tuple[str, ...], expected: dict[str, str]) -> None:
    assert members(*words) == expected


def test_the_same_hosts_are_started_once() -> None:
    with _launch(Remembering) as started:
        first = started.start("a", "/other#b", backend="vm")
        assert started.start("/other#b", "#a", backend="vm") is first
        assert started.start("a", "b", backend="vm") is not first


def test_hosts_of_other_flakes_are_asked_for_there() -> None:
    with pytest.raises(Asked) as told, launch() as cluster:
        cluster.start("/other#b", backend="vm")
    assert told.value.args == ("b", "member", "/other")


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("b", "/other#b"), ("b", "member", "/own", "b")),
        (("/other#b", "b"), ("b", "member", "/other", "/other#b")),
        (("/other#b", "a"), ("b", "member", "/other")),
    ],
)
def test_hosts_of_one_attribute_have_hardware_addresses_of_their_own(
    words: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    with pytest.raises(Asked) as told, launch() as cluster:
        cluster.start(*words, backend="vm")
    assert told.value.args == asked


class FakeMachine:
    """Boots until it is recalled, or not at all."""

    def __init__(self, recall: Recall, failure: BaseException | None = None) -> None:
        self._recall = recall
        self._failure = failure
        self.was_recalled = False

    def start(self) -> None:
        if self._failure is not None:
            raise self._failure
        deadline = Deadline.after(60, recall=self._recall)
        try:
            poll(lambda: None, deadline=deadline, interval_s=0.01)
        except Recalled:
            self.was_recalled = True
            raise


@pytest.mark.parametrize(
    "failure", [MachineError("b: broke", remedy="mend it"), KeyboardInterrupt()]
)
def test_nobody_is_waited_for_when_one_does_not_start(
    monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    recall = Recall()
    slow = FakeMachine(recall)
    began_s = time.monotonic()
    with pytest.raises(type(failure)):
        boot_together(cast("Any", [slow, FakeMachine(recall, failure)]), recall)
    assert time.monotonic() - began_s < 20
    assert slow.was_recalled


def test_a_member_that_does_not_evaluate_is_told() -> None:
    with pytest.raises(EvalError, match="broken: does not evaluate"), launch() as cluster:
        cluster.start("broken", backend="vm")


@pytest.mark.parametrize("word", ["/other#", "/other#b#c"])
def test_a_malformed_host_is_told_by_whom(word: str) -> None:
    with pytest.raises(SettingsError, match=r"nixos_cluster '/other#"):
        launch().start(word, backend="vm")


@pytest.mark.parametrize(
    ("uid", "said", "asked", "evaluated"),
    [
        (0, None, None, "container"),
        (1000, None, None, "member"),
        (0, BackendName.VM, None, "member"),
        (0, BackendName.SSH, None, "container"),
        (0, BackendName.VM, "container", "container"),
        (0, None, {"a": "vm"}, "member"),
        (1000, None, "vm", "member"),
    ],
)
def test_what_a_member_is(
    monkeypatch: pytest.MonkeyPatch, uid: int, said: BackendName | None, asked: Any, evaluated: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    with pytest.raises(Asked) as told, launch(said) as cluster:
        cluster.start("a", backend=asked)
    assert told.value.args == ("a", evaluated, "/own")


def test_containers_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineError, match="a: a machine of a cluster that is a container needs"):
        launch().start("a", backend="container")
    with pytest.raises(MachineError, match=r"b: .* needs root"):
        launch().start("a", "b", backend={"b": "container"})


def test_odd_requests_are_refused() -> None:
    with pytest.raises(SettingsError, match="a: no machine of a cluster is a 'ssh'"):
        launch().start("a", backend="ssh")
    with pytest.raises(SettingsError, match="bb: no member of this cluster"):
        launch().start("a", "b", backend={"bb": "vm"})
    with pytest.raises(FlakeError, match="a cluster of no hosts"):
        launch().start()


def test_odd_containers_of_proxmox_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SettingsError, match="pct of bb: no member of this cluster"):
        launch().start("a", pct={"bb": "--net0 name=eth0,ip=dhcp"})
    with pytest.raises(SettingsError, match="pct of a: it is a VM"):
        launch().start("a", backend="vm", pct={"a": "--net0 name=eth0,ip=dhcp"})
    with pytest.raises(SettingsError, match="pct of a: --mp0 is not modelled"):
        launch().start("a", pct={"a": "--net0 name=eth0,ip=dhcp --mp0 x"})
    with pytest.raises(Asked):
        launch().start("a", pct={"a": "--net0 name=eth0,ip=dhcp"})
