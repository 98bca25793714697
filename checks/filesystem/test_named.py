"""Paths that services name are there, or nowhere near one that is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, Observations, not_applicable, observe

from .named import (
    LOOK,
    absent_in_store,
    elsewhere,
    meant_by,
    named_by,
    packages_have,
    read_neighbours,
    remedy_of,
)

_MOST_ASKED = 2000


@pytest.mark.nixos_control("FS-026")
def test_paths_that_services_name_are_no_slip_of_the_pen(
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    toplevel = Path(nixos_host_config.toplevel)
    if not toplevel.exists():
        not_applicable("unknown: this machine does not have the files that the services read")
    units = [
        (unit, tuple(observe.read_files(unit, toplevel)))
        for unit in observe.declared_units(nixos_host_config).values()
    ]
    named = {unit.name: sorted(set(named_by(unit, files))) for unit, files in units}
    nixos_evidence.expect("each path is there, or nowhere near one that is")
    away = elsewhere(nixos_host_config)
    paths = sorted(
        {one.path for found in named.values() for one in found if not one.path.startswith(away)}
    )[:_MOST_ASKED]
    asked = "".join(f"{path}\0" for path in paths)
    done = nixos_machine.run(LOOK, stdin=asked.encode())
    assert done.exit_status == 0, (
        f"the guest did not tell which paths are there: {done.stderr_text}"
    )
    neighbours = read_neighbours(done.stdout)
    slips = {
        one: meant
        for found in named.values()
        for one in found
        if one.path in neighbours
        and (meant := meant_by(one.path, neighbours[one.path], {other.path for other in found}))
    }
    absent = sorted({one for unit, files in units for one in absent_in_store(unit, files)})
    told = [
        f"{one.unit}: {one.place} names {one.path}, which is not there (meant: {meant}?)"
        for one, meant in slips.items()
    ]
    told += [
        f"{one.unit}: {one.place} names {one.path}, and {packages_have(one.path)}" for one in absent
    ]
    nixos_evidence.observe(told)
    failed = nixos_observations.of(observe.failed_units()) or ()
    broken = [one for one in (*slips, *absent) if one.unit in failed]
    nixos_evidence.blame("secret", *(one.path for one in broken if one.is_private))
    nixos_evidence.blame("unit", *dict.fromkeys(one.unit for one in broken))
    nixos_evidence.remedy = "\n".join(
        dict.fromkeys(remedy_of(one, slips.get(one, "")) for one in (*slips, *absent))
    )
    assert not told, "; ".join(told)
