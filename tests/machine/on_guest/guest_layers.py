"""What is tried on the host ``layers`` of ``test_own_disks.py``, by a run of its own."""

from __future__ import annotations

import re

from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.faults.faults import Faults

_LIMIT_S = 300.0


def _said(machine: Machine, command: str) -> str:
    return machine.run(command, timeout_s=_LIMIT_S).stdout_text


def test_each_lies_on_what_is_declared(nixos_machine: Machine) -> None:
    text = _said(nixos_machine, "findmnt --noheadings --raw --output TARGET,SOURCE,FSTYPE")
    found = {line.split()[0]: tuple(line.split()[1:3]) for line in text.splitlines()}
    layers = _said(nixos_machine, "lsblk --noheadings --inverse --output TYPE /dev/mapper/pool-db")

    assert found["/"] == ("/dev/vda1[/@]", "btrfs")
    assert found["/home"] == ("/dev/vda1[/@home]", "btrfs")
    assert found["/var/lib/db"] == ("/dev/mapper/pool-db", "xfs")
    assert found["/vault"] == ("/dev/mapper/vault", "ext4")
    assert found["/mirror"][1] == "ext4"
    assert sorted(re.findall(r"\w+", layers)) == ["crypt", "disk", "lvm", "part"]
    assert "/dev/dm-" in _said(nixos_machine, "cat /proc/swaps")


def test_a_mirror_survives_a_pulled_disk_and_takes_it_back(
    nixos_machine: Machine, nixos_faults: Faults
) -> None:
    assert "[2/2]" in _said(nixos_machine, "cat /proc/mdstat")
    with nixos_faults.disk_pulled("sda"):
        assert nixos_machine.run("echo kept > /mirror/file && sync /mirror/file").succeeded
        assert "[2/1]" in _said(nixos_machine, "cat /proc/mdstat")
    member = "/dev/disk/by-partlabel/pytest-nixos-mirror-sda"
    taken = nixos_machine.run(
        f"udevadm settle; mdadm /dev/md/mirror --remove detached; mdadm /dev/md/mirror --add {member}",
        timeout_s=_LIMIT_S,
    )
    state = _said(nixos_machine, "cat /proc/mdstat")

    assert taken.succeeded, taken.stderr_text
    assert "[2/2]" in state or "recovery" in state or "DELAYED" in state, state
    assert _said(nixos_machine, "cat /mirror/file") == "kept\n"


def test_a_scrub_finds_a_block_that_was_damaged_below_the_file_system(
    nixos_machine: Machine,
) -> None:
    wrote = _said(
        nixos_machine,
        "head -c 262144 /dev/urandom > /home/victim; sync;"
        """ filefrag -v /home/victim | awk '$1 == "0:" { print $4 + 0 }'""",
    )
    clean = nixos_machine.run("btrfs scrub start -B /home", timeout_s=_LIMIT_S)
    at = _said(nixos_machine, f"btrfs-map-logical -l {int(wrote) * 4096} /dev/vda1")
    block = int(at.split("physical ")[1].split()[0]) // 4096
    nixos_machine.run(
        f"dd if=/dev/urandom of=/dev/vda1 bs=4096 seek={block} count=1 conv=notrunc,fsync;"
        " echo 3 > /proc/sys/vm/drop_caches",
        timeout_s=_LIMIT_S,
    )
    found = nixos_machine.run("btrfs scrub start -B /home", timeout_s=_LIMIT_S)

    assert clean.succeeded, clean.stdout_text + clean.stderr_text
    assert not found.succeeded
    assert "csum=1" in found.stdout_text + found.stderr_text
    assert not nixos_machine.run("cat /home/victim > /dev/null").succeeded
