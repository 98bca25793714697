"""A data control whose unit has no internet is not judged, though no argument brings the machine."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.machine.base import State
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.observe.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.machines.changed import ChangedMachines
from pytest_nixos.plugin.record.unjudged import unjudged_without_internet
from pytest_nixos.subject import Subject, SubjectKind
from tests.unit.observe.test_internet import FAILED, SAID, Guest

UNIT = "fetch.service"


class RunningGuest(Guest):
    state = State.RUNNING


def finding() -> Finding:
    return Finding(
        control="WEB-001",
        title="It answers",
        suite="web",
        host="h",
        backend="container",
        severity=Severity.HIGH,
        outcome=Outcome.FAILED,
        judged_on="machine",
        reason="no answer",
        threat="",
        remedy="",
        rests_on=(Subject(SubjectKind.UNIT, UNIT),),
    )


def needs_of(_key: str, observations: Callable[[], Observations | None]) -> NeedsOfMachine:
    return NeedsOfMachine(no_way_out=NoWayOut(), observations=observations)


def session(machines: ChangedMachines) -> Any:
    return SimpleNamespace(needs_of=needs_of, changed_machines=machines)


@pytest.mark.parametrize("said", [SAID, "permission denied"])
def test_the_hosts_shared_machine_is_asked(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(collect, "control_of", lambda *_: SimpleNamespace(is_data=True))
    machines = ChangedMachines()
    item = cast("pytest.Item", SimpleNamespace(funcargs={}))
    assert unjudged_without_internet(finding(), item, session(machines)) == finding()

    guest = RunningGuest(states={UNIT: FAILED}, said={UNIT: said})
    machines.enter("h", cast("Any", guest))
    judged = unjudged_without_internet(finding(), item, session(machines))

    if said == SAID:
        assert judged.outcome is Outcome.NOT_APPLICABLE
        assert judged.reason == f"needs the internet: not judged: {UNIT} (data.example.org)"
        assert Subject(SubjectKind.INTERNET, UNIT) in judged.rests_on
    else:
        assert judged == finding()
