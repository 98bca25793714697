"""Timers, sockets and paths: something starts them, and they start something that can start."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, Unit, not_applicable, observe

from .declared import accepting_instance, never_elapses
from .look import (  # noqa: F401 - fixtures
    NOT_LOADED,
    States,
    declared_here,
    said_of_files,
    states_now,
)
from .remedies import elapsing, once
from .triggers import (
    cannot_start,
    started_by_nothing,
    trigger_of_missing,
    wanted_by_its_target,
)


@pytest.mark.nixos_control("UNIT-005")
def test_every_timer_elapses(
    declared: Mapping[str, Unit],
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
        n for n, unit in timers.items() if n in states and started_by_nothing(unit, states[n])
    ]
    if not (active or orphans):
        not_applicable("the host declares no timer that systemd loaded")
    triggers = {name: state.get("Triggers").split(" ")[0] for name, state in active.items()}
    started = nixos_observations.of(
        observe.units(sorted(filter(None, triggers.values())), name="triggered-by-timers")
    )
    waiting = sorted(name for name, state in started.items() if not state.is_running)
    unmet = nixos_observations.of(observe.unmet_needs(nixos_host_config, waiting))
    nixos_evidence.expect({"timers that elapse": sorted({*active, *orphans})})
    idle: dict[str, str] = {}
    mended: list[str] = []
    for name, state in active.items():
        unit = triggers[name]
        if why := never_elapses(name, state, started.get(unit)):
            idle[name] = why
            mended.append(
                trigger_of_missing(timers[name], unit, nixos_host_config.units)
                if unit in started and not started[unit].exists
                else elapsing(name, declared[name], said)
            )
            continue
        lack, remedy = cannot_start(unit, declared, said, unmet)
        if lack:
            idle[name] = f"starts {unit}, which cannot start: {lack}"
            mended.append(remedy)
    for name in orphans:
        idle[name] = "nothing starts it, so it never elapses"
        mended.append(wanted_by_its_target(name))
    nixos_evidence.observe(idle)
    nixos_evidence.remedy = once(mended)
    assert not idle, "; ".join(f"{name}: {why}" for name, why in idle.items())


@pytest.mark.nixos_control("UNIT-006")
def test_every_socket_has_a_service_that_can_start(
    declared: Mapping[str, Unit],
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
    orphans = [n for n in triggers if started_by_nothing(sockets[n], states[n])]
    if not triggers:
        not_applicable("the host declares no socket or path unit that systemd loaded")
    started = nixos_observations.of(
        observe.units(sorted(set(served.values())), name="triggered-by-sockets")
    )
    waiting = sorted(set(served.values()) - {n for n, s in started.items() if s.is_running})
    unmet = nixos_observations.of(observe.unmet_needs(nixos_host_config, waiting))
    mended: dict[str, str] = {}
    for name, unit in served.items():
        state = started.get(unit)
        if state is None or state.get("LoadState") in NOT_LOADED:
            broken[name] = f"starts {unit}, which systemd could not load"
            mended[name] = trigger_of_missing(sockets[name], unit, nixos_host_config.units)
            continue
        if state.is_failed:
            broken[name] = f"starts {unit}, which has failed ({state.get('Result')})"
            mended[name] = f"# {name} needs {unit}: read why that failed, journalctl -b -u {unit}"
            continue
        lack, remedy = cannot_start(unit, declared, said, unmet)
        if lack:
            broken[name] = f"starts {unit}, which cannot start: {lack}"
            mended[name] = remedy
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
