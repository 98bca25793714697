"""Memory: what the kernel killed for want of it is a cause, and what failed with it an echo."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, observe

_KILL = "Out of memory: Killed process"


@pytest.mark.nixos_control("UNIT-012")
def test_nothing_was_killed_for_want_of_memory(
    nixos_host_config: HostConfig, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    history = nixos_observations.of(observe.unit_history())
    assert history.answered, "systemd or its journal does not answer"
    killed = sorted(
        {e.unit for e in history.events if e.kind is observe.UnitEventKind.OUT_OF_MEMORY and e.unit}
    )
    kernel = [line for line in history.kernel if _KILL in line]
    bounded = [
        name
        for name in killed
        if (unit := nixos_host_config.units.get(name)) is not None
        and any(value not in ("", "infinity") for value in unit.setting("Service", "MemoryMax"))
    ]
    nixos_evidence.expect([])
    nixos_evidence.observe({"units": killed, "kernel": kernel})
    nixos_evidence.blame("unit", *killed)
    if kernel or set(killed) - set(bounded):
        nixos_evidence.blame("memory")
    for name in killed:
        journal = nixos_observations.of(observe.journal(name))
        nixos_evidence.attach(f"journal of {name}", "\n".join(journal))
    if bounded and bounded == killed and not kernel:
        nixos_evidence.remedy = "\n".join(
            f'systemd.services."{name.removesuffix(".service")}".serviceConfig.MemoryMax = lib.mkForce "infinity";'
            f"  # or as much as it needs"
            for name in bounded
        )
    own = f"{', '.join(bounded)} came to its own MemoryMax" if bounded else ""
    others = ", ".join(name for name in killed if name not in bounded)
    said = [*([others] if others else []), *([own] if own else []), *kernel[:1]]
    assert not killed and not kernel, f"killed for want of memory: {'; '.join(said)}"
