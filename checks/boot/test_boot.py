"""Boot health: the settled system is what was built, and all of it works."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, observe

# More restarts than a service makes that merely waited for another one.
_MANY_RESTARTS = 5


@pytest.mark.nixos_control("BOOT-001")
def test_no_unit_has_failed(nixos_observations: Observations, nixos_evidence: Evidence) -> None:
    nixos_evidence.expect([])
    failed = nixos_evidence.observe(nixos_observations.of(observe.failed_units()))
    assert failed is not None, "systemd did not answer"
    for unit in failed:
        journal = nixos_observations.of(observe.journal(unit))
        nixos_evidence.attach(f"journal of {unit}", "\n".join(journal))
    assert not failed, f"failed: {', '.join(failed)}"


@pytest.mark.nixos_control("BOOT-002")
def test_system_reaches_its_default_target(
    nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    state = nixos_observations.of(observe.system_state())
    target = nixos_observations.of(observe.units(["default.target"]))["default.target"]
    nixos_evidence.expect({"default.target": "active", "system": "running or degraded"})
    nixos_evidence.observe({"default.target": target.get("ActiveState"), "system": state})
    assert target.is_running, f"default.target is {target.get('ActiveState') or 'unknown'}"
    assert state in ("running", "degraded"), f"the system is {state or 'silent'}"


@pytest.mark.nixos_control("BOOT-003")
def test_running_system_is_what_was_built(
    nixos_host_config: HostConfig, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    generations = nixos_observations.of(observe.generations())
    expected = nixos_evidence.expect(nixos_host_config.toplevel)
    nixos_evidence.observe({"current": generations.current, "booted": generations.booted})
    assert generations.current == expected, f"/run/current-system is {generations.current}"
    if generations.booted:
        assert generations.booted == expected, f"/run/booted-system is {generations.booted}"


@pytest.mark.nixos_control("BOOT-004")
def test_no_unit_waits_or_restarts_for_ever(
    nixos_host_config: HostConfig, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    services = [n for n, unit in nixos_host_config.units.items() if n.endswith(".service")]
    states = nixos_observations.of(observe.units(services))
    nixos_evidence.expect({"restarts": f"at most {_MANY_RESTARTS}", "activating": []})
    restless = {
        name: f"{state.get('ActiveState')} ({state.get('SubState')}), {state.get('NRestarts')} restarts"
        for name, state in states.items()
        if state.get("SubState") in ("auto-restart", "auto-restart-queued")
        or int(state.get("NRestarts") or 0) > _MANY_RESTARTS
    }
    nixos_evidence.observe(restless)
    for unit in restless:
        journal = nixos_observations.of(observe.journal(unit))
        nixos_evidence.attach(f"journal of {unit}", "\n".join(journal))
    assert states, "systemd told nothing about any unit"
    assert not restless, f"restarting: {', '.join(restless)}"
