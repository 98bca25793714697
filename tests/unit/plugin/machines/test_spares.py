"""Which runs leave a spare, and what becomes of it where they do not end well."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_nixos.plugin.machines.spares import SPARES, Spares
from pytest_nixos.plugin.settings.declared_options import Keep, SnapshotUse


class Config:
    """What is asked of pytest's."""

    def __init__(self, given: str | None) -> None:
        self.given = given
        self.stash = pytest.Stash()
        self.pluginmanager = SimpleNamespace(register=lambda *_: None)
        self.cleanups: list[object] = []
        self.add_cleanup = self.cleanups.append

    def getoption(self, name: str) -> str | None:
        assert name == "nixos_spare"
        return self.given


@dataclasses.dataclass
class Settings:
    spare_s: float = 0.0
    snapshot: SnapshotUse = SnapshotUse.AUTO
    keep: Keep = Keep.NEVER


def prepared(config: Config, settings: Settings, owner: int | None = None) -> Spares | None:
    Spares.prepare(cast("Any", config), cast("Any", settings), owner=owner)
    return config.stash.get(SPARES, None)


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)


def test_only_where_it_is_asked_for() -> None:
    assert prepared(Config(None), Settings()) is None
    assert prepared(Config("5"), Settings(spare_s=300)) is not None
    assert prepared(Config(None), Settings(spare_s=300)) is not None


def test_always_between_the_runs_of_a_watched_session() -> None:
    spares = prepared(Config(None), Settings(), owner=7)
    assert spares is not None
    assert (spares._limit_s, spares._owner) == (math.inf, 7)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(spare_s=300, snapshot=SnapshotUse.OFF),
        Settings(spare_s=300, keep=Keep.FAILED),
    ],
)
def test_not_where_there_is_none_to_be_had(settings: Settings) -> None:
    assert prepared(Config("5"), settings) is None


def test_in_ci_only_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert prepared(Config(None), Settings(spare_s=300)) is None
    assert prepared(Config("5"), Settings(spare_s=300)) is not None


class Keepers:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        self.started: list[object] = []
        self.fails = fails
        monkeypatch.setattr("pytest_nixos.machine.keeper.order.start_keeper", self.start)

    def start(self, order: object) -> None:
        if self.fails:
            raise OSError("no more processes")
        self.started.append(order)


def ended(monkeypatch: pytest.MonkeyPatch, how: pytest.ExitCode, *, fails: bool = False) -> Keepers:
    keepers = Keepers(monkeypatch, fails=fails)
    monkeypatch.setattr(
        "pytest_nixos.machine.keeper.order.SpareOrder.of",
        lambda _machine, *, host, limit_s, owner: (host, limit_s, owner),
    )
    spares = prepared(Config("5"), Settings(spare_s=300))
    assert spares is not None
    spares.note(cast("Any", object()), "f#web")
    spares.note(cast("Any", object()), "f#web")
    spares.pytest_sessionfinish(how)
    spares.start()
    return keepers


def test_one_for_each_host_when_the_run_has_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keepers = ended(monkeypatch, pytest.ExitCode.TESTS_FAILED)
    assert keepers.started == [("f#web", 300.0, None)]
    assert capsys.readouterr().out == (
        "nixos: f#web: a spare for the next run, for 5 min (pytest-nixos machines)\n"
    )


def test_whoever_interrupts_wants_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(monkeypatch, pytest.ExitCode.INTERRUPTED).started == []


def test_a_spare_that_cannot_be_ordered_costs_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, pytest.ExitCode.OK, fails=True).started == []
    assert capsys.readouterr().out == "nixos: f#web: no spare: no more processes\n"


def test_a_machine_that_is_no_clone_is_not_ordered() -> None:
    from pytest_nixos.machine.keeper.order import SpareOrder

    machine = SimpleNamespace(backend=object(), can_reset=True, spec=Path("/nowhere"))
    assert SpareOrder.of(cast("Any", machine), host="f#web", limit_s=1.0, owner=None) is None
