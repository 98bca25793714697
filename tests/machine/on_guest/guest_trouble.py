"""What is tried on the host ``stripes`` of ``test_own_disks.py``, by a run of its own: trouble with disks that it
survives, or tells.
"""

from __future__ import annotations

import importlib

import pytest

from pytest_nixos import FaultError
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.faults.faults import Faults

pytestmark = pytest.mark.nixos_destructive

_LIMIT_S = 300.0
# Of the suites as they are installed, which this file is not collected beside.
_ARRAYS = importlib.import_module("pytest_nixos.checks.filesystem.test_arrays")


def _said(machine: Machine, command: str) -> str:
    return machine.run(command, timeout_s=_LIMIT_S).stdout_text


def test_an_array_of_three_is_one_and_survives_a_pulled_member(
    nixos_machine: Machine, nixos_faults: Faults
) -> None:
    state = _said(nixos_machine, "cat /proc/mdstat")
    assert "raid5" in state, state
    assert "[3/3] [UUU]" in state, state
    assert nixos_machine.run("head -c 3M /dev/urandom > /stripes/file && sync").succeeded
    before = _said(nixos_machine, "sha256sum /stripes/file")
    with nixos_faults.disk_pulled("sdb"):
        _said(nixos_machine, "echo 3 > /proc/sys/vm/drop_caches; echo more > /stripes/more; sync")
        assert _said(nixos_machine, "sha256sum /stripes/file") == before
        told = _said(nixos_machine, "cat /proc/mdstat; mdadm --detail /dev/md/stripes")
        assert "[3/2]" in told, told
        assert "degraded" in told, told
        [array] = [line.split("\t") for line in _said(nixos_machine, _ARRAYS._READ).splitlines()]
        assert _ARRAYS._told(*array[1:]) == "(raid5) lacks 1 of 3 members"
    assert "[3/3] [UUU]" in _made_whole(nixos_machine, "sdb", lost="detached")
    assert _said(nixos_machine, "cat /stripes/more") == "more\n"


def _made_whole(machine: Machine, disk: str, *, lost: str) -> str:
    """Give the array its member again; return what the kernel says then."""
    member = f"/dev/disk/by-partlabel/pytest-nixos-stripes-{disk}"
    done = machine.run(
        f"udevadm settle; mdadm /dev/md/stripes --remove {lost}; mdadm /dev/md/stripes --add {member}"
        " && mdadm --wait /dev/md/stripes; cat /proc/mdstat",
        timeout_s=_LIMIT_S,
    )
    return done.stdout_text + done.stderr_text


def test_a_failing_member_leaves_its_array_and_nothing_is_lost(
    nixos_machine: Machine, nixos_faults: Faults
) -> None:
    with nixos_faults.failing_disk("sda"):
        # More than a stripe, so that each member is written to.
        write = "head -c 4M /dev/urandom > /stripes/kept && sync /stripes/kept"
        assert nixos_machine.run(write, timeout_s=_LIMIT_S).succeeded
        before = _said(nixos_machine, "sha256sum /stripes/kept")
        assert "[3/2]" in _said(nixos_machine, "cat /proc/mdstat")
    _said(nixos_machine, "echo 3 > /proc/sys/vm/drop_caches")
    assert _said(nixos_machine, "sha256sum /stripes/kept") == before
    assert "[3/3] [UUU]" in _made_whole(nixos_machine, "sda", lost="failed")


def test_a_file_system_on_a_failing_disk_turns_read_only_and_comes_back(
    nixos_machine: Machine, nixos_faults: Faults
) -> None:
    booted = _said(nixos_machine, "cat /proc/sys/kernel/random/boot_id")
    with nixos_faults.failing_disk("sdc"):
        assert not nixos_machine.run("echo lost > /spare/lost && sync /spare/lost").succeeded
        # Its journal cannot be written, and it gives up.
        nixos_machine.run("sync --file-system /spare; touch /spare/x; sync --file-system /spare")
        assert not nixos_machine.run("touch /spare/more").succeeded
        assert nixos_machine.run("echo other > /root/other && sync /root/other").succeeded
        assert "error" in _said(nixos_machine, "dmesg | grep -i sdc")
    assert _said(nixos_machine, "cat /proc/sys/kernel/random/boot_id") != booted
    assert nixos_machine.run("echo more > /spare/more && sync /spare/more").succeeded


def test_power_takes_what_was_not_flushed_and_leaves_what_was(
    nixos_machine: Machine, nixos_faults: Faults
) -> None:
    with nixos_faults.volatile_write_cache() as cache:
        # No journal may commit, and so flush, between what is synced and the cut.
        nixos_machine.run("mount -o remount,commit=900 /; mount -o remount,commit=900 /spare")
        nixos_machine.run(
            "head -c 512K /dev/zero > /root/flushed; head -c 512K /dev/zero > /spare/block; sync"
        )
        # Straight to the disk, into blocks that the file has already: nothing flushes them.
        write = "dd if=/dev/urandom of=/spare/block bs=64K count=8 oflag=direct conv=notrunc"
        assert nixos_machine.run(write).succeeded
        written = _said(
            nixos_machine, "dd if=/spare/block iflag=direct bs=64K status=none | sha256sum"
        )
        lost = {disk.disk: disk for disk in cache.lose_power()}
    zeros = _said(nixos_machine, "head -c 512K /dev/zero | sha256sum")

    assert written != zeros
    assert lost["sdc"].lost_bytes >= 8 * 65536, lost
    assert lost["sdc"].flushes, lost
    assert _said(nixos_machine, "sha256sum < /spare/block") == zeros
    assert _said(nixos_machine, "sha256sum < /root/flushed") == zeros


def test_a_full_boot_partition_takes_nothing_and_is_as_before_afterwards(
    nixos_machine: Machine, nixos_faults: Faults
) -> None:
    free = _said(nixos_machine, "df --output=avail /boot")
    with nixos_faults.disk_full("/boot"):
        assert (
            "No space left" in nixos_machine.run("head -c 256K /dev/zero > /boot/new").stderr_text
        )
        nixos_machine.run("rm -f /boot/new")
    assert _said(nixos_machine, "df --output=avail /boot") == free


def test_two_faults_between_a_machine_and_its_disks_are_refused(nixos_faults: Faults) -> None:
    with (
        nixos_faults.failing_disk("sdc"),
        pytest.raises(FaultError, match="another fault stands between"),
        nixos_faults.volatile_write_cache(),
    ):
        pass
    with (
        pytest.raises(FaultError, match=r"no disk sdz that it writes to; there are: .*sda"),
        nixos_faults.failing_disk("sdz"),
    ):
        pass
