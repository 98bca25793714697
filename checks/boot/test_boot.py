"""Boot health: the settled system is what was built, and all of it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NoReturn

import pytest

from pytest_nixos import (
    BootError,
    Evidence,
    HostConfig,
    Machine,
    Observations,
    not_applicable,
    observe,
)

from .activation import blame_the_activation, why_untold
from .mounts import lost_mounts, remedy_of_lost

# How long its next try may take to come, how often it is looked at, and how long it then has to stay.
_NEXT_TRY_S = 12.0
_LOOK_S = 1.5
_STAYS_S = 4.0


@pytest.fixture
def looked(nixos_host_config: HostConfig, nixos_observations: Observations) -> Observations:
    """What systemd tells of the units, for those who need many: one table answers all."""
    nixos_observations.prefetch([observe.declared_states(nixos_host_config), observe.boot_time()])
    return nixos_observations


@pytest.mark.nixos_control("BOOT-001")
def test_no_unit_has_failed(
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_internet: observe.NeedsOfMachine,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect([])
    failed = nixos_evidence.observe(nixos_observations.of(observe.failed_units()))
    assert failed is not None, "systemd did not answer"
    needs = nixos_internet.of(failed)
    broken = [unit for unit in failed if unit not in needs]
    nixos_evidence.rest_on("internet", *needs)
    nixos_evidence.blame("unit", *broken)
    journals = {unit: nixos_observations.of(observe.journal(unit)) for unit in failed}
    for unit, journal in journals.items():
        nixos_evidence.attach(f"journal of {unit}", "\n".join(journal))
    failures = observe.why_failed(
        {unit: journals[unit] for unit in broken},
        nixos_host_config,
        lambda: nixos_observations.of(observe.sockets(owners=True)).units_by_port(),
    )
    nixos_evidence.remedy = failures.remedy
    assert not broken, f"failed: {failures.words}"
    if needs:
        not_applicable(nixos_internet.words(needs))


@pytest.mark.nixos_control("BOOT-002")
def test_system_reaches_its_default_target(
    request: pytest.FixtureRequest,
    nixos_boot_failure: BootError | None,
    nixos_evidence: Evidence,
) -> None:
    if nixos_boot_failure is not None:
        host: HostConfig = request.getfixturevalue("nixos_host_config")
        _blame_the_boot(nixos_boot_failure, host, nixos_evidence)
    nixos_observations: Observations = request.getfixturevalue("nixos_observations")
    state = nixos_observations.of(observe.system_state())
    nixos_internet: observe.NeedsOfMachine = request.getfixturevalue("nixos_internet")
    target = nixos_observations.of(observe.units(["default.target"]))["default.target"]
    nixos_evidence.expect({"default.target": "active", "system": "running or degraded"})
    nixos_evidence.observe({"default.target": target.get("ActiveState"), "system": state})
    if not target.is_running and (needs := nixos_internet.holding_up()):
        # Nothing else is queued: without these the target would be reached.
        nixos_evidence.rest_on("internet", *needs)
        not_applicable(nixos_internet.words(needs))
    assert target.is_running, f"default.target is {target.get('ActiveState') or 'unknown'}"
    assert state in ("running", "degraded"), f"the system is {state or 'silent'}"


def _blame_the_boot(failure: BootError, host: HostConfig, evidence: Evidence) -> NoReturn:
    """Fail for a machine that did not come up; what could not be judged on it is explained by
    that.
    """
    evidence.expect({"default.target": "active", "system": "running or degraded"})
    evidence.observe({"boot": failure.state})
    if failure.console_tail:
        evidence.attach("last lines", "\n".join(failure.console_tail))
    lost = lost_mounts(failure.console_tail, host)
    evidence.remedy = remedy_of_lost(lost, host) or failure.remedy
    evidence.blame("machine")
    told = ", ".join(f"{m.path} ({m.words})" if m.words else m.path for m in lost)
    first, *more = failure.message.split("\n")
    why = f"; not mounted: {told}" if lost else ""
    pytest.fail("\n".join([f"{first}{why}", *more]), pytrace=False)


@pytest.mark.nixos_control("BOOT-003")
def test_running_system_is_what_was_built(
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
    nixos_stage: str,
) -> None:
    generations = nixos_observations.of(observe.generations())
    expected = nixos_evidence.expect(nixos_host_config.toplevel)
    nixos_evidence.observe({"current": generations.current, "booted": generations.booted})
    assert generations.current == expected, f"/run/current-system is {generations.current}"
    # After an upgrade without a reboot the old system is what booted.
    if generations.booted and nixos_stage != "new":
        assert generations.booted == expected, f"/run/booted-system is {generations.booted}"


@pytest.mark.nixos_control("BOOT-004")
def test_no_unit_waits_or_restarts_for_ever(
    nixos_host_config: HostConfig,
    looked: Observations,
    nixos_machine: Machine,
    nixos_internet: observe.NeedsOfMachine,
    nixos_evidence: Evidence,
) -> None:
    seen = looked.of(observe.declared_states(nixos_host_config))
    services = [name for name in nixos_host_config.units if name.endswith(".service")]
    states = {name: seen[name] for name in services if name in seen}
    nixos_evidence.expect({"restarts": f"at most {observe.MANY_RESTARTS}", "activating": []})
    restless = {
        name: f"{state.get('ActiveState')} ({state.get('SubState')}), {state.get('NRestarts')} restarts"
        for name, state in states.items()
        if state.is_restless
    }
    for unit in _that_stay_up(nixos_machine, {name: states[name] for name in restless}):
        del restless[unit]
    nixos_evidence.observe(restless)
    needs = nixos_internet.of(
        [*restless, *(name for name, s in states.items() if s.get("ActiveState") == "activating")]
    )
    broken = [unit for unit in restless if unit not in needs]
    nixos_evidence.rest_on("internet", *needs)
    nixos_evidence.blame("unit", *broken)
    journals = {u: looked.of(observe.journal(u)) for u in {**restless, **needs}}
    for unit, journal in journals.items():
        nixos_evidence.attach(f"journal of {unit}", "\n".join(journal))
    assert states, "systemd told nothing about any unit"
    failures = observe.why_failed(
        {unit: journals[unit] for unit in broken},
        nixos_host_config,
        lambda: looked.of(observe.sockets(owners=True)).units_by_port(),
    )
    nixos_evidence.remedy = failures.remedy
    assert not broken, f"restarting: {failures.words}"
    if needs:
        not_applicable(nixos_internet.words(needs))


def _that_stay_up(machine: Machine, restless: Mapping[str, observe.UnitState]) -> list[str]:
    """Return the services that were between two tries of a few, as one that waits for another, and
    that run a moment later and go on.
    """
    few = [n for n, s in restless.items() if not s.restarts_too_often]
    until_s = time.monotonic() + _NEXT_TRY_S
    waiting = few
    while waiting and time.monotonic() < until_s:
        time.sleep(_LOOK_S)
        now = observe.observe(machine.run, observe.units(few))
        waiting = [name for name in few if name in now and not now[name].is_running]
    if not few or len(waiting) == len(few):
        return []
    time.sleep(_STAYS_S)
    later = observe.observe(machine.run, observe.units(few))
    return [
        name
        for name in few
        if name not in waiting
        and name in later
        and later[name].is_running
        and later[name].get("NRestarts") == now[name].get("NRestarts")
    ]


@pytest.mark.nixos_control("BOOT-005")
def test_boot_stays_within_its_budget(
    nixos_host_config: HostConfig,
    looked: Observations,
    nixos_internet: observe.NeedsOfMachine,
    nixos_slowness: Callable[[], str],
    nixos_evidence: Evidence,
) -> None:
    boot = looked.of(observe.boot_time())
    if boot is None and (needs := nixos_internet.holding_up()):
        nixos_evidence.rest_on("internet", *needs)
        not_applicable(nixos_internet.words(needs))
    assert boot is not None, "systemd does not tell how long the boot took"
    nixos_evidence.observe(
        {
            "seconds": round(boot.total_s, 2),
            "phases": {name: round(seconds, 2) for name, seconds in boot.phases_s.items()},
            "critical chain": [_timed(unit) for unit in boot.critical_chain],
            "slowest": [_timed(unit) for unit in boot.slowest if unit.took_s > 0],
        }
    )
    budget_s = nixos_evidence.expect(_budget_s(nixos_host_config))
    if budget_s is None:
        not_applicable("the host declares no budget (passthru.pytest-nixos.bootBudget)")
    if boot.emulated and boot.total_s > budget_s:
        not_applicable(
            f"the processor is emulated: {boot.total_s:.0f} s tell nothing about {budget_s:g} s"
        )
    if boot.total_s > budget_s and (why := nixos_slowness()):
        not_applicable(f"unknown: {boot.total_s:.0f} s tell nothing about {budget_s:g} s, {why}")
    assert boot.total_s <= budget_s, f"the boot took {boot.total_s:.1f} s of {budget_s:g} s"


@pytest.mark.nixos_control("BOOT-006")
def test_activation_of_this_boot_had_no_errors(
    nixos_machine: Machine,
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_place: str,
    nixos_evidence: Evidence,
) -> None:
    seen = nixos_observations.of(observe.boot_activation())
    on_console = observe.parse_activation(
        "\n".join(line.text for line in nixos_machine.console.lines)
    )
    failures = {
        failure.snippet: failure
        for failure in observe.own_failures(
            (*on_console.failures, *seen.failures), place=nixos_place
        )
    }
    nixos_evidence.expect([])
    nixos_evidence.observe([f"{name} ({found.status})" for name, found in failures.items()])
    for name, found in failures.items():
        nixos_evidence.attach(f"what was said before {name} failed", "\n".join(found.said))
    if not (seen.told or on_console.told):
        not_applicable(why_untold(nixos_host_config, nixos_place))
    if failures:
        blame_the_activation(failures, nixos_host_config, nixos_observations, nixos_evidence)
    assert not failures, "the activation of this boot had errors: " + ", ".join(
        f"{name} ({found.status})" for name, found in failures.items()
    )


def _budget_s(host: HostConfig) -> float | None:
    said = host.option("passthru.pytest-nixos").value
    if not isinstance(said, dict) or "bootBudget" not in said:
        return None
    budget = said["bootBudget"]
    assert isinstance(budget, int | float) and not isinstance(budget, bool) and budget > 0, (
        f"passthru.pytest-nixos.bootBudget: expected a number of seconds, got {budget!r}"
    )
    return float(budget)


def _timed(unit: observe.UnitTime) -> dict[str, object]:
    return {
        "unit": unit.name,
        "at": round(unit.started_s + unit.took_s, 2),
        "took": round(unit.took_s, 2),
    }
