"""Mounts and swap: what the machine's file system table promises is there."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, Observations, not_applicable, observe


@pytest.mark.nixos_control("UNIT-007")
def test_every_mount_and_swap_of_the_table_is_there(
    nixos_observations: Observations,
    nixos_internet: observe.NeedsOfMachine,
    nixos_evidence: Evidence,
) -> None:
    table = nixos_observations.of(observe.filesystem_table())
    if table is None:
        not_applicable("the machine has no /etc/fstab")
    wanted = [entry for entry in table if not entry.waits_for_use]
    if not wanted:
        not_applicable("nothing in /etc/fstab is mounted at boot")
    mounts = nixos_observations.of(observe.mounts())
    used = nixos_observations.of(observe.swap()).areas
    areas = [area for area in used if not area.path.startswith("/dev/zram")]
    swap_kinds = [entry for entry in wanted if entry.is_swap]
    absent = [e for e in wanted if not e.is_swap and mounts.at(e.path) is None]
    units = {entry.path: observe.mount_unit(entry.path) for entry in absent}
    needs = nixos_internet.of(list(units.values()))
    nixos_evidence.rest_on("internet", *needs)
    missing = [
        f"{entry.path}: {entry.source} ({entry.filesystem}) is not mounted"
        for entry in absent
        if units[entry.path] not in needs
    ]
    if len(areas) < len(swap_kinds):
        named = ", ".join(entry.source for entry in swap_kinds)
        missing.append(
            f"{len(areas)} of {len(swap_kinds)} swap areas are in use, declared: {named}"
        )
    nixos_evidence.expect([entry.path if not entry.is_swap else entry.source for entry in wanted])
    nixos_evidence.observe(missing)
    assert not missing, "; ".join(missing)
    if needs:
        not_applicable(nixos_internet.words(needs))
