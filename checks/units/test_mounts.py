"""Mounts and swap: what the machine's file system table promises is there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, not_applicable, observe

from .areas import idle_swap, remedy_of_missing


@pytest.mark.nixos_control("UNIT-007")
def test_every_mount_and_swap_of_the_table_is_there(
    nixos_host_config: HostConfig,
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
    gone = [entry for entry in absent if units[entry.path] not in needs]
    missing = [f"{e.path}: {e.source} ({e.filesystem}) is not mounted" for e in gone]
    if len(areas) < len(swap_kinds):
        named = ", ".join(entry.source for entry in swap_kinds)
        missing.append(
            f"{len(areas)} of {len(swap_kinds)} swap areas are in use, declared: {named}"
        )
    nixos_evidence.expect([entry.path if not entry.is_swap else entry.source for entry in wanted])
    nixos_evidence.observe(missing)
    if missing:
        idle = idle_swap([entry.source for entry in swap_kinds], [area.path for area in areas])
        nixos_evidence.remedy = remedy_of_missing([entry.path for entry in gone], idle)
        _blame(gone, swap_kinds, nixos_host_config, nixos_observations, nixos_evidence)
    assert not missing, "; ".join(missing)
    if needs:
        not_applicable(nixos_internet.words(needs))


def _blame(
    gone: Sequence[observe.FileSystemEntry],
    swap_kinds: Sequence[observe.FileSystemEntry],
    host: HostConfig,
    observations: Observations,
    evidence: Evidence,
) -> None:
    """Blame what is not mounted, its own units, and what is down for want of it."""
    down = observe.down_units(host, observations)
    evidence.blame("mount", *(entry.path for entry in gone))
    for entry in gone:
        own = {unit_of_path(entry.path, "mount"), unit_of_path(entry.source, "device")}
        own |= {f"systemd-fsck@{unit_of_path(entry.source, 'service')}"}
        resting = [name for name, unit in down.items() if name in own or unit.names(entry.path)]
        evidence.blame("unit", *resting)
    areas = [e.source for e in swap_kinds if unit_of_path(e.source, "swap") in down]
    evidence.blame("mount", *areas)
    evidence.blame("unit", *(unit_of_path(source, "swap") for source in areas))


def unit_of_path(path: str, kind: str) -> str:
    """Return the unit of another kind that systemd makes of a path."""
    return f"{observe.mount_unit(path).removesuffix('mount')}{kind}"
