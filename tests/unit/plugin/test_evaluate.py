import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import EvalError, FlakeError, NixosError
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef, HostSelection
from pytest_nixos.nix.config.declared import Declared
from pytest_nixos.nix.config.host_facts import parse_host_config
from pytest_nixos.nix.schedule import Room
from pytest_nixos.plugin.evaluate import open_session
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.plugin.settings.options import Settings
from tests.unit.host_documents import document

FLAKE = FlakeRef("/f")


def config(name: str) -> object:
    return SimpleNamespace(
        system="x86_64-linux",
        image="",
        is_container=False,
        said=f"config of {name}",
        option=lambda path: Declared(path=path, state="absent"),
    )


def told(entry: HostEntry) -> str:
    found: Any = entry.config
    return str(found.said)


class OneByOne:
    """Plays a flake, and all flakes: knows some hosts, evaluates others, and counts how many at
    once.
    """

    def __init__(
        self, names: Sequence[str], *, known: Sequence[str] = (), broken: Sequence[str] = ()
    ) -> None:
        self.names, self.known_names, self.broken = names, known, broken
        self.evaluated: list[str] = []
        self.fetched = 0
        self.meeting = threading.Barrier(2)
        self.met = False
        self.error: type[NixosError] = EvalError
        self.nix = SimpleNamespace(settings=NixSettings())
        self.system = "x86_64-linux"

    def of(self, ref: FlakeRef) -> "OneByOne":
        assert ref == FLAKE
        return self

    def host_names(self) -> Sequence[str]:
        return self.names

    def fetch(self) -> None:
        self.fetched += 1

    def known(self, name: str, **_: object) -> object:
        return config(name) if name in self.known_names else None

    def evaluate(self, name: str, **_: object) -> object:
        self.evaluated.append(name)
        if name in self.broken:
            raise self.error(f"{name} is broken", remedy="mend it")
        if len(self.names) > 1:
            self.meeting.wait(timeout=10)
            self.met = True
        return config(name)


def opened(nix: OneByOne, pytestconfig: pytest.Config) -> tuple[NixosSession, list[str]]:
    said: list[str] = []
    settings = replace(Settings.from_config(pytestconfig), flakes=(HostSelection(FLAKE, None),))
    fake: Any = nix
    session = open_session(settings, fake, catalogue_dirs=())
    session.evaluate(session.host_keys, said.append)
    return session, said


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(processors=2, available_mib=lambda: 1 << 20)
    monkeypatch.setattr(Room, "of_this_machine", classmethod(lambda _: room))


@pytest.mark.usefixtures("roomy")
def test_hosts_are_evaluated_at_once_and_their_inputs_fetched_before(
    pytestconfig: pytest.Config,
) -> None:
    nix = OneByOne(["a", "b", "c", "d"])
    session, said = opened(nix, pytestconfig)
    assert nix.met
    assert nix.fetched == 1
    assert [told(entry) for entry in session.entries] == [f"config of {n}" for n in nix.names]
    assert len(said) == 4


@pytest.mark.usefixtures("roomy")
def test_known_hosts_cost_no_evaluation(pytestconfig: pytest.Config) -> None:
    nix = OneByOne(["a"], known=["a"])
    session, said = opened(nix, pytestconfig)
    assert told(session.entry("a")) == "config of a"
    assert (nix.evaluated, nix.fetched, said) == ([], 0, [])


@pytest.mark.usefixtures("roomy")
def test_a_host_that_does_not_evaluate_takes_no_other_with_it(pytestconfig: pytest.Config) -> None:
    nix = OneByOne(["a", "bad", "b"], broken=["bad"])
    session, said = opened(nix, pytestconfig)
    failure = session.entry("bad").failure
    assert failure is not None
    assert failure.message == "bad is broken"
    assert session.entry("a").config and session.entry("b").config
    assert "bad: does not evaluate" in said


@pytest.mark.usefixtures("roomy")
def test_a_flake_that_cannot_be_read_ends_the_run(pytestconfig: pytest.Config) -> None:
    nix = OneByOne(["a", "b"], broken=["a", "b"])
    nix.error = FlakeError
    with pytest.raises(FlakeError, match="is broken"):
        opened(nix, pytestconfig)


def test_builds_are_planned_once_and_only_where_nothing_is_built(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    nix = OneByOne(["built", "new", "other"], known=["built", "new", "other"])
    session, _ = opened(nix, pytestconfig)
    for entry in session.entries:
        document_ = {**document(), "derivation": f"/{entry.key}.drv", "output": "/nowhere"}
        if entry.key == "built":
            document_["output"] = str(tmp_path)
        entry.config = parse_host_config(entry.ref, document_, option_paths=())
    session.plan_builds(["built", "new"])
    assert session.take_builds() == ("/new.drv",)
    assert session.take_builds() == ()
