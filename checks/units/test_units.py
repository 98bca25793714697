"""Units: systemd loaded each declared unit as it is written, and started what is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from pytest_nixos import (
    Evidence,
    HostConfig,
    Observations,
    Unit,
    not_applicable,
    observe,
)

from .declared import (
    failed_requirements,
    nearest_directive,
    never_started,
    own_started_by_others,
    pulled_in_by_nothing,
    refusals,
)
from .idle import OF_SYSTEMD, misspelt_wanting, requiring_remedy, start_them, why_idle
from .look import (  # noqa: F401 - fixtures
    NOT_LOADED,
    States,
    declared_here,
    said_of_files,
    states_now,
)
from .ordering import left_out, without_an_ordering
from .remedies import elapsing, instead_of, once, unrefused
from .triggers import TRIGGERS


@pytest.fixture
def report(said: observe.UnitFileReport) -> observe.UnitFileReport:
    """What the guest's systemd says of the declared unit files."""
    if not said.answered:
        not_applicable("unknown: the guest's systemd-analyze does not verify unit files")
    return said


@pytest.mark.nixos_control("UNIT-001")
def test_systemd_loaded_every_declared_unit(
    declared: Mapping[str, Unit],
    states: States,
    said: observe.UnitFileReport,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect("every declared unit is loaded")
    refused = nixos_evidence.observe(refusals(declared, states))
    nixos_evidence.blame("unit", *refused)
    ignored = {found.unit for found in said.ignored}
    if ignored.issuperset(refused):
        nixos_evidence.rest_on("unit", *refused)  # for want of the line that UNIT-002 tells of
    told: dict[str, str] = {}
    mended = []
    for unit, why in refused.items():
        texts = said.of(unit)
        nixos_evidence.attach(f"what systemd says of {unit}", "\n".join(texts) or "nothing")
        reason, remedy = unrefused(unit, texts)
        if unit.endswith(".timer") and unit in ignored:
            remedy = elapsing(unit, declared[unit], said)
        told[unit] = f"{why} {reason}".rstrip()
        mended.append(remedy)
    nixos_evidence.remedy = once(mended)
    assert not refused, "; ".join(f"{unit}: {why}" for unit, why in told.items())


@pytest.mark.nixos_control("UNIT-002")
def test_systemd_knows_every_directive(
    declared: Mapping[str, Unit],
    nixos_host_config: HostConfig,
    report: observe.UnitFileReport,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect("every directive of a declared unit is in force")
    own = {*declared, *observe.declared_templates(nixos_host_config)}
    ignored = [found for found in report.ignored if found.unit in own]
    # A template has no properties, an instance of it has.
    shown = {found.unit: found.unit.replace("@.", "@test.") for found in ignored}
    known = nixos_observations.of(
        observe.units(sorted(shown.values()), properties=("*",), name="all-properties")
    )
    wrong: dict[str, list[str]] = {}
    mended: list[str] = []
    units = {*nixos_host_config.units, *OF_SYSTEMD}
    for found in ignored:
        state = known.get(shown[found.unit])
        meant = nearest_directive(found.key, state.properties if state else (), found.unit)
        hint = f" (did you mean {meant}?)" if found.key and meant not in ("", found.key) else ""
        wrong.setdefault(found.unit, []).append(f"line {found.line}: {found.text}{hint}")
        mended.append(instead_of(found, nixos_host_config.units[found.unit], meant, units))
    nixos_evidence.observe(wrong)
    nixos_evidence.blame("unit", *(unit for unit in wrong if unit.endswith(".timer")))
    nixos_evidence.remedy = once(mended)
    assert not wrong, "; ".join(f"{unit}: {', '.join(texts)}" for unit, texts in wrong.items())


@pytest.mark.nixos_control("UNIT-003")
def test_no_job_is_dropped_for_an_ordering_cycle(
    declared: Mapping[str, Unit],
    states: States,
    report: observe.UnitFileReport,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect("no ordering cycle")
    cycles = [c for c in report.cycles if set(c.members) & set(declared)]
    seen = {
        " <-> ".join(cycle.members): {
            unit: states[unit].get("ActiveState") if unit in states else "unknown"
            for unit in cycle.members
        }
        for cycle in cycles
    }
    nixos_evidence.observe(seen)
    for unit in {cycle.unit for cycle in cycles}:
        nixos_evidence.attach(f"what systemd says of {unit}", "\n".join(report.of(unit)))
    dropped = left_out({unit for cycle in cycles for unit in cycle.members}, states)
    nixos_evidence.blame("unit", *dropped)
    nixos_evidence.remedy = "\n".join(without_an_ordering(c.members, declared) for c in cycles)
    left = f"; not running for it: {', '.join(dropped)}" if dropped else ""
    assert not cycles, (
        "systemd drops jobs to break ordering cycles: "
        + ", ".join(" after ".join((*cycle.members, cycle.at)) for cycle in cycles)
        + left
    )


@pytest.mark.nixos_control("UNIT-004")
def test_every_wanted_unit_was_started(
    declared: Mapping[str, Unit],
    states: States,
    said: observe.UnitFileReport,
    nixos_observations: Observations,
    nixos_internet: observe.NeedsOfMachine,
    nixos_evidence: Evidence,
) -> None:
    running = [name for name, state in states.items() if state.is_running]
    nixos_evidence.expect("every unit that something active wants has been started")
    misspelt = misspelt_wanting(declared, states)
    idle = dict(never_started(declared, states, running))
    for unit in _starting_nothing(idle, states, nixos_observations):
        del idle[unit]  # told by UNIT-005 and UNIT-006
    for unit, slips in misspelt.items():
        names = (f"{slip.written}, which is not there (meant: {slip.meant}?)" for slip in slips)
        idle[unit] = f"wanted by {', '.join(names)}"
    nixos_evidence.observe(dict(idle))
    needs = nixos_internet.of(idle)
    nixos_evidence.rest_on("internet", *needs)
    for unit in needs:
        del idle[unit]
    nixos_evidence.blame("unit", *idle)
    known: dict[str, str] = {}
    broken = {unit: failed_requirements(unit, declared, states) for unit in idle}
    if all(broken.values()):
        nixos_evidence.rest_on("unit", *sorted({n for failed in broken.values() for n in failed}))
    for unit, failed in broken.items():
        if failed:
            idle[unit] = f"not started, since it requires {', '.join(sorted(failed))}, which failed"
            known[unit] = (
                f"# {unit} starts once {' and '.join(sorted(failed))} does: mend that first."
            )
        elif unit not in misspelt and (why := why_idle(unit, declared, states, said.of(unit))):
            idle[unit] = f"never started: {why}"
            known[unit] = requiring_remedy(unit, declared, said.of(unit))
    nixos_evidence.remedy = start_them(misspelt, sorted(idle.keys() - misspelt.keys()), known)
    for unit in idle:
        text = "\n".join(said.of(unit)) or "nothing"
        nixos_evidence.attach(f"what systemd says of {unit}", text)
    assert not idle, "; ".join(f"{unit}: {why}" for unit, why in idle.items())
    if needs:
        not_applicable(nixos_internet.words(needs))


def _starting_nothing(
    idle: Iterable[str], states: States, observations: Observations
) -> Sequence[str]:
    """Return the timers, sockets and paths that systemd does not start since it could not load what
    they start.
    """
    starting = {
        unit: states[unit].get("Triggers").split(" ")[0]
        for unit in idle
        if unit.endswith(tuple(TRIGGERS))
    }
    triggered = sorted(filter(None, starting.values()))
    if not triggered:
        return []  # no trip to the guest
    seen = observations.of(observe.units(triggered, name="triggered-by-idle"))
    return [
        unit
        for unit, name in starting.items()
        if name in seen and seen[name].get("LoadState") in NOT_LOADED
    ]


@pytest.mark.nixos_control("UNIT-008")
def test_every_unit_is_started_by_something(
    nixos_host_config: HostConfig, states: States, nixos_evidence: Evidence
) -> None:
    units = [name for name in own_started_by_others(nixos_host_config) if name in states]
    if not units:
        not_applicable("the host declares no service, timer or socket of its own")
    nixos_evidence.expect("something wants, triggers or requires each declared unit")
    orphans = nixos_evidence.observe([name for name in units if pulled_in_by_nothing(states[name])])
    assert not orphans, f"nothing ever starts: {', '.join(orphans)}"


@pytest.mark.nixos_control("UNIT-011")
def test_every_unit_can_be_judged_without_the_internet(
    nixos_internet: observe.NeedsOfMachine,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    if nixos_internet.has_way_out:
        not_applicable("this machine reaches the internet: what fails there fails for itself")
    nixos_evidence.expect({})
    assert nixos_observations.of(observe.failed_units()) is not None, "systemd did not answer"
    needs = nixos_internet.all()
    nixos_evidence.observe({unit: need.address or need.why for unit, need in needs.items()})
    nixos_evidence.blame("internet", *needs)
    for unit in needs:
        journal = nixos_observations.of(observe.journal(unit))
        nixos_evidence.attach(f"journal of {unit}", "\n".join(journal))
    if needs:
        not_applicable(nixos_internet.words(needs))
