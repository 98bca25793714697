"""What is declared persistent survives a reboot, and what is not is gone: seen by a reboot."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable

from .persistence import Places, places_of

pytestmark = pytest.mark.nixos_requires("vm")

_NAME = ".pytest-nixos-persistence"
_FAILED = "systemctl list-units --failed --plain --no-legend --no-pager | cut -d' ' -f1"


@pytest.fixture
def places(nixos_host_config: HostConfig) -> Places:
    """Where the host keeps what it must not forget; asked before a machine is started."""
    found = places_of(nixos_host_config)
    if not found.forgotten:
        not_applicable("the host's root lies on a disk and is kept as a whole")
    if not nixos_host_config.own_disks:
        not_applicable(
            "the VM has the disk of build-vm; --nixos-disks declared gives it the host's own"
        )
    return found


@pytest.mark.nixos_control("FS-023")
def test_only_what_is_declared_persistent_survives_a_reboot(
    places: Places, request: pytest.FixtureRequest, nixos_evidence: Evidence
) -> None:
    machine: Machine = request.getfixturevalue("nixos_fresh_machine")
    _write(machine, (*places.kept, *places.forgotten))
    before = _failed(machine)
    machine.power_off(orderly=True)
    machine.power_on()
    lost = [p for p in places.kept if not _is_there(machine, p)]
    left = [p for p in places.forgotten if _is_there(machine, p)]
    newly_failed = sorted(_failed(machine) - before)
    nixos_evidence.expect(
        {"kept": list(places.kept), "forgotten": list(places.forgotten), "newly failed units": []}
    )
    nixos_evidence.observe(
        {"lost": lost, "not forgotten": left, "newly failed units": newly_failed}
    )
    assert not lost, f"declared persistent, and gone after a reboot: {', '.join(lost)}"
    assert not left, f"in memory by the config, and still there after a reboot: {', '.join(left)}"
    assert not newly_failed, f"failed only after a reboot: {', '.join(newly_failed)}"


def _write(machine: Machine, directories: Sequence[str]) -> None:
    for directory in directories:
        made = machine.run(
            f"mkdir -p {shlex.quote(directory)} && echo kept > {_file(directory)} && sync"
        )
        assert made.succeeded, f"{directory}: nothing can be written there: {made.stderr_text}"


def _is_there(machine: Machine, directory: str) -> bool:
    return machine.run(f"grep -qx kept {_file(directory)}").succeeded


def _file(directory: str) -> str:
    return shlex.quote(f"{directory.rstrip('/')}/{_NAME}")


def _failed(machine: Machine) -> set[str]:
    return set(machine.run(_FAILED).stdout_text.split())
