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
    DORMANT,
    accepting_instance,
    failed_requirements,
    missing_program,
    nearest_directive,
    never_elapses,
    never_started,
    pulled_in_by_nothing,
    refusals,
)
from .idle import misspelt_wanting, requiring_remedy, start_them, why_idle
from .remedies import instead_of, unrefused
from .triggers import (
    TRIGGERS,
    started_by_nothing,
    trigger_of_missing,
    wanted_by_its_target,
    with_program,
)

States = Mapping[str, observe.UnitState]
# What nothing starts by itself, and is of no use unless it is started.
_NOT_LOADED = frozenset({"not-found", "bad-setting", "error"})
_NO_CALENDAR = "Timer unit lacks value setting"
_STARTED_BY_OTHERS = (".service", ".timer", ".socket")


@pytest.fixture(scope="module")
def declared(nixos_host_config: HostConfig) -> Mapping[str, Unit]:
    """The units that the host declares, without templates and without what it switches off."""
    return observe.declared_units(nixos_host_config)


@pytest.fixture
def states(
    declared: Mapping[str, Unit], nixos_host_config: HostConfig, nixos_observations: Observations
) -> States:
    """Every declared unit, and what wants one, as systemd sees it now."""
    wanting = {target for unit in declared.values() for target in unit.wanted_by}
    seen = nixos_observations.of(observe.declared_states(nixos_host_config))
    found = {name: seen[name] for name in sorted({*declared, *wanting}) if name in seen}
    assert found, "systemd told nothing about any unit"
    return found


@pytest.fixture
def said(nixos_host_config: HostConfig, nixos_observations: Observations) -> observe.UnitFileReport:
    """What the guest's systemd says of the declared unit files, if it says anything."""
    return nixos_observations.of(observe.declared_files(nixos_host_config))


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
    told: dict[str, str] = {}
    mended = []
    for unit, why in refused.items():
        texts = said.of(unit)
        nixos_evidence.attach(f"what systemd says of {unit}", "\n".join(texts) or "nothing")
        reason, remedy = unrefused(unit, texts)
        told[unit] = f"{why} {reason}".rstrip()
        mended.append(remedy)
    nixos_evidence.remedy = "\n".join(mended)
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
    for found in ignored:
        state = known.get(shown[found.unit])
        meant = nearest_directive(found.key, state.properties if state else (), found.unit)
        hint = f" (did you mean {meant}?)" if found.key and meant not in ("", found.key) else ""
        wrong.setdefault(found.unit, []).append(f"line {found.line}: {found.text}{hint}")
        mended.append(instead_of(found, nixos_host_config.units[found.unit], meant))
    nixos_evidence.observe(wrong)
    nixos_evidence.remedy = "\n".join(mended)
    assert not wrong, "; ".join(f"{unit}: {', '.join(texts)}" for unit, texts in wrong.items())


@pytest.mark.nixos_control("UNIT-003")
def test_no_job_is_dropped_for_an_ordering_cycle(
    declared: Mapping[str, Unit],
    states: States,
    report: observe.UnitFileReport,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect("no ordering cycle")
    cycles = [c for c in report.cycles if {c.unit, c.at} & set(declared)]
    seen = {
        f"{cycle.unit} <-> {cycle.at}": {
            unit: states[unit].get("ActiveState") if unit in states else "unknown"
            for unit in (cycle.unit, cycle.at)
        }
        for cycle in cycles
    }
    nixos_evidence.observe(seen)
    for unit in {cycle.unit for cycle in cycles}:
        nixos_evidence.attach(f"what systemd says of {unit}", "\n".join(report.of(unit)))
    dropped = sorted(
        {
            unit
            for cycle in cycles
            for unit in (cycle.unit, cycle.at)
            if unit in states and not states[unit].is_running
        }
    )
    nixos_evidence.blame("unit", *dropped)
    left = f"; not running for it: {', '.join(dropped)}" if dropped else ""
    assert not cycles, (
        "systemd drops jobs to break ordering cycles: "
        + ", ".join(dict.fromkeys(f"{c.unit} (cycle with {c.at})" for c in cycles))
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
        if name in seen and seen[name].get("LoadState") in _NOT_LOADED
    ]


@pytest.mark.nixos_control("UNIT-005")
def test_every_timer_elapses(
    nixos_host_config: HostConfig,
    states: States,
    said: observe.UnitFileReport,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    timers = observe.declared_units(nixos_host_config, ".timer")
    # systemd does not even start a timer whose service is not there, so those that are wanted count
    # too.
    active = {
        name: states[name]
        for name, timer in timers.items()
        if name in states
        and states[name].get("LoadState") == "loaded"
        and (states[name].is_running or timer.wanted_by)
    }
    orphans = [
        n for n, unit in timers.items() if n in states and started_by_nothing(n, unit, states[n])
    ]
    if not (active or orphans):
        not_applicable("the host declares no timer that systemd loaded")
    triggers = {name: state.get("Triggers").split(" ")[0] for name, state in active.items()}
    started = nixos_observations.of(
        observe.units(sorted(filter(None, triggers.values())), name="triggered-by-timers")
    )
    nixos_evidence.expect({"timers that elapse": sorted({*active, *orphans})})
    idle: dict[str, str] = {}
    mended: list[str] = []
    for name, state in active.items():
        unit = triggers[name]
        if why := never_elapses(name, state, started.get(unit)):
            idle[name] = why
            mended.append(
                trigger_of_missing(name, unit, nixos_host_config.units)
                if unit in started and not started[unit].exists
                else unrefused(name, [_NO_CALENDAR])[1]
            )
        elif lack := missing_program(unit, said):
            idle[name] = f"starts {unit}, which cannot start: {lack}"
            mended.append(with_program(unit))
    for name in orphans:
        idle[name] = "nothing starts it, so it never elapses"
        mended.append(wanted_by_its_target(name))
    nixos_evidence.observe(idle)
    nixos_evidence.remedy = "\n".join(mended)
    assert not idle, "; ".join(f"{name}: {why}" for name, why in idle.items())


@pytest.mark.nixos_control("UNIT-006")
def test_every_socket_has_a_service_that_can_start(
    nixos_host_config: HostConfig,
    states: States,
    said: observe.UnitFileReport,
    nixos_observations: Observations,
    nixos_internet: observe.NeedsOfMachine,
    nixos_evidence: Evidence,
) -> None:
    sockets = observe.declared_units(nixos_host_config, ".socket", ".path")
    triggers = {
        name: accepting_instance(socket) or state.get("Triggers").split(" ")[0]
        for name, socket in sockets.items()
        if (state := states.get(name)) is not None and state.get("LoadState") == "loaded"
    }
    served = {name: unit for name, unit in triggers.items() if unit}
    broken = {
        name: f"{states[name].get('ActiveState')} ({states[name].get('Result')})"
        for name in triggers
        if states[name].is_failed
    }
    orphans = [n for n in triggers if started_by_nothing(n, sockets[n], states[n])]
    if not triggers:
        not_applicable("the host declares no socket or path unit that systemd loaded")
    started = nixos_observations.of(
        observe.units(sorted(set(served.values())), name="triggered-by-sockets")
    )
    mended: dict[str, str] = {}
    for name, unit in served.items():
        state = started.get(unit)
        if state is None or state.get("LoadState") in _NOT_LOADED:
            broken[name] = f"starts {unit}, which systemd could not load"
            mended[name] = trigger_of_missing(name, unit, nixos_host_config.units)
        elif state.is_failed:
            broken[name] = f"starts {unit}, which has failed ({state.get('Result')})"
            mended[name] = f"# {name} needs {unit}: read why that failed, journalctl -b -u {unit}"
        elif lack := missing_program(unit, said):
            broken[name] = f"starts {unit}, which cannot start: {lack}"
            mended[name] = with_program(unit)
    for name in orphans:
        broken.setdefault(name, "nothing starts it, so it waits for nobody")
        mended.setdefault(name, wanted_by_its_target(name))
    needs = nixos_internet.of([served[name] for name in broken if name in served])
    nixos_evidence.rest_on("internet", *needs)
    broken = {name: why for name, why in broken.items() if served.get(name) not in needs}
    nixos_evidence.blame("unit", *(served.get(name, name) for name in broken))
    nixos_evidence.expect({"can start": served})
    nixos_evidence.observe(broken)
    nixos_evidence.remedy = "\n".join(
        mended.get(name) or f"# {name}: see what it says, journalctl -b -u {name}"
        for name in broken
    )
    assert not broken, "; ".join(f"{name}: {why}" for name, why in broken.items())
    if needs:
        not_applicable(nixos_internet.words(needs))


@pytest.mark.nixos_control("UNIT-008")
def test_every_unit_is_started_by_something(
    nixos_host_config: HostConfig, states: States, nixos_evidence: Evidence
) -> None:
    units = {
        name: unit
        for name, unit in observe.declared_units(nixos_host_config, *_STARTED_BY_OTHERS).items()
        if name in states
        and (unit.setting("Service", "ExecStart") or not name.endswith(".service"))
    }
    if not units:
        not_applicable("the host declares no service of its own")
    nixos_evidence.expect("something wants, triggers or requires each declared unit")
    orphans = nixos_evidence.observe(
        [name for name in units if name not in DORMANT and pulled_in_by_nothing(states[name])]
    )
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
