"""A verdict that rests on a unit which needs the internet is no verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import pytest

from pytest_nixos.errors import NixosError
from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.observe.network.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.record.journal import machine_of
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.subject import Subject, SubjectKind

__all__ = ["unjudged_without_internet"]


def unjudged_without_internet(
    finding: Finding, item: pytest.Item, session: NixosSession
) -> Finding:
    """Return a failed finding as "not applicable" where a unit that it rests on, or all that it
    found broken, could not come up for want of the internet; any other as it is.

    The machine is asked only for a failure that names units. For a data control that was when it was
    looked at: what it was judged by.
    """
    # A data control asks for the machine on its way, and not by an argument.
    machine = machine_of(item) or session.changed_machines.of(finding.host)
    rests_on = [s.name for s in finding.rests_on if s.kind is SubjectKind.UNIT]
    blames = [s.name for s in finding.blames if s.kind is SubjectKind.UNIT]
    named = [*rests_on, *blames]
    if finding.outcome is not Outcome.FAILED or machine is None or not named:
        return finding
    control = collect.control_of(item, session)
    is_data = control is not None and control.is_data
    look = session.looks.get(finding.host) if is_data else None
    if look is not None and look.machine is machine:
        needs = look.needs
    else:
        seen = Observations(machine)
        needs = session.needs_of(finding.host, lambda: seen)
    try:
        found = needs.of(named)
        explained = _rests_on_nothing_else(found, rests_on, needs, is_data=is_data)
    except NixosError:
        return finding  # a machine that does not answer explains nothing
    explained = explained or (
        len(blames) == len(finding.blames) > 0 and all(name in found for name in blames)
    )
    if not explained:
        return finding
    return dataclasses.replace(
        finding,
        outcome=Outcome.NOT_APPLICABLE,
        reason=needs.words(found),
        blames=(),
        rests_on=(
            *finding.rests_on,
            *(Subject(SubjectKind.INTERNET, unit) for unit in found),
        ),
    )


def _rests_on_nothing_else(
    found: Collection[str], rests_on: Sequence[str], needs: NeedsOfMachine, *, is_data: bool
) -> bool:
    """Whether what a verdict rests on is what needs the internet.

    A check names what has to work, all of it; a data control names every unit that it may look at,
    so that one of them which is there and well may be what it found wrong.
    """
    if not any(name in found for name in rests_on):
        return False
    if not is_data:
        return True
    states = needs.states(rests_on)
    return not any(state.exists and name not in found for name, state in states.items())
