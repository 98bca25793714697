"""A data control whose unit has no internet is not judged, though no argument brings the machine."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.machine.base import State
from pytest_nixos.machine.boot.internet import NoWayOut
from pytest_nixos.observe.network.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.judging.first_look import FirstLook
from pytest_nixos.plugin.machines.changed import ChangedMachines
from pytest_nixos.plugin.record.unjudged import unjudged_without_internet
from pytest_nixos.standards.judging.look import Parsed
from pytest_nixos.subject import Subject, SubjectKind
from tests.unit.observe.network.test_internet import FAILED, RUNS, SAID, Guest

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
    return SimpleNamespace(needs_of=needs_of, changed_machines=machines, looks={})


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


def test_data_controls_are_explained_by_the_look_that_judged_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_data = True
    monkeypatch.setattr(collect, "control_of", lambda *_: SimpleNamespace(is_data=is_data))
    guest = RunningGuest(states={UNIT: FAILED}, said={UNIT: SAID})
    machine, store = cast("Any", guest), Observations(guest)
    machines = ChangedMachines()
    machines.enter("h", machine)
    needs = NeedsOfMachine(
        no_way_out=NoWayOut(), observations=lambda: store, foreseen=("other.service", UNIT)
    )
    look = FirstLook(machine=machine, store=store, seen=Parsed({}, store), needs=needs)
    run = session(machines)
    run.looks["h"] = look
    item = cast("pytest.Item", SimpleNamespace(funcargs={}))

    def outcome() -> Outcome:
        return unjudged_without_internet(finding(), item, run).outcome

    look.take()
    assert guest.asked == 1
    assert outcome() is outcome() is Outcome.NOT_APPLICABLE
    assert guest.asked == 2, (
        "what the unit said is asked for once, and its state came with the look"
    )

    guest.states = {UNIT: RUNS}
    assert outcome() is Outcome.NOT_APPLICABLE, "it was judged by what was seen before"
    guest.epoch += 1
    assert outcome() is Outcome.FAILED, "what was seen before a change explains nothing after it"

    guest.states = {UNIT: FAILED}
    is_data = False
    assert outcome() is Outcome.NOT_APPLICABLE, (
        "a check that tries things meets the machine as it is"
    )
