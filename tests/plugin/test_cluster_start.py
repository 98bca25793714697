"""What `nixos_cluster` refuses before it evaluates anything, and what its machines are by default."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import FlakeError, MachineError, SettingsError
from pytest_nixos.plugin.machines.cluster import ClusterLaunch


class Asked(Exception):
    """Stands for an evaluation: with which backend it was asked for."""


class FakeFlake:
    """Tells what it is asked."""

    def evaluate(self, name: str, *, backend: str, **_more: object) -> Any:
        raise Asked(name, str(backend))


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
    settings = SimpleNamespace(backend=backend)
    return ClusterLaunch(
        cast("Any", FakeFlake()), cast("Any", settings), progress=cast("Any", Silent()), config=None
    )


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
    assert told.value.args == ("a", evaluated)


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
