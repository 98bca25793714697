"""A clone's command line, and what a guest is told when it wakes up; as values."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.local.memory import HostMemoryError, available_bytes, check_memory
from pytest_nixos.machine.snapshot.clone import (
    Clone,
    Disk,
    DiskKind,
    memory_argv,
    relative_argv,
    saved_disks,
    unsavable,
)
from pytest_nixos.machine.snapshot.clone_disks import overlay_argv
from pytest_nixos.machine.snapshot.quiesce import at_rest_text, parse_timers, waking_command
from pytest_nixos.machine.snapshot.record import GuestAtRest
from pytest_nixos.machine.vm.run_script import (
    effective_memory_mib,
    parse_run_script,
    unsavable_script,
)

RUN_DIR = Path("/tmp/pytest-nixos-a")
MEMORY = Path("/cache/.new-1/ram")
# As QEMU ran for a host of nixpkgs 24.05 with EFI, an empty disk and a store image.
STARTED = (
    "/nix/store/q/bin/qemu-system-x86_64",
    *("-name", "h"),
    *("-m", "1024"),
    *(
        "-drive",
        f"cache=writeback,file={RUN_DIR}/disk.qcow2,id=drive1,if=none,index=1,werror=report",
    ),
    *("-device", "virtio-blk-pci,bootindex=1,drive=drive1,serial=root"),
    *("-drive", f"file={RUN_DIR}/tmp/store.img,format=raw,id=drive2,if=none,index=2"),
    *("-drive", f"file={RUN_DIR}/tmp/empty0.qcow2,format=qcow2,id=drive3,if=none,index=3"),
    *("-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/nix/store/f/OVMF_CODE.fd"),
    *("-drive", f"if=pflash,format=raw,unit=1,readonly=off,file={RUN_DIR}/efi-vars.fd"),
    *("-qmp", f"unix:{RUN_DIR}/qmp.sock,server=on,wait=off"),
    "-nographic",
    *memory_argv(MEMORY, memory_mib=1024),
)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    (tmp_path / "disk.qcow2").write_bytes(b"QFI\xfb\0\0\0\3")
    return tmp_path


def relative() -> tuple[str, ...]:
    return relative_argv(STARTED, run_dir=RUN_DIR, memory=MEMORY)


def test_a_recorded_command_line_names_no_directory_of_the_first_machine() -> None:
    assert not [word for word in relative() if str(RUN_DIR) in word or "/cache/" in word]
    assert saved_disks(relative()) == (
        "disk.qcow2",
        "tmp/store.img",
        "tmp/empty0.qcow2",
        "efi-vars.fd",
    )
    assert unsavable(relative()) == ""


def test_a_clone_has_its_own_memory_disks_and_sockets(snapshot: Path) -> None:
    run_dir = Path("/tmp/pytest-nixos-b")
    clone = Clone.of(relative(), "@RUN@/tmp", snapshot=snapshot, run_dir=run_dir)
    assert clone.argv == (
        "/nix/store/q/bin/qemu-system-x86_64",
        *("-name", "h"),
        *("-m", "1024"),
        *(
            "-drive",
            f"cache=writeback,file={run_dir}/disk.qcow2,id=drive1,if=none,index=1,werror=report,format=qcow2",
        ),
        *("-device", "virtio-blk-pci,bootindex=1,drive=drive1,serial=root"),
        *(
            "-drive",
            f"file={snapshot}/tmp/store.img,format=raw,id=drive2,if=none,index=2,snapshot=on",
        ),
        *("-drive", f"file={run_dir}/tmp/empty0.qcow2,format=qcow2,id=drive3,if=none,index=3"),
        *("-drive", "if=pflash,format=raw,unit=0,readonly=on,file=/nix/store/f/OVMF_CODE.fd"),
        *("-drive", f"if=pflash,format=raw,unit=1,readonly=off,file={run_dir}/efi-vars.fd"),
        *("-qmp", f"unix:{run_dir}/qmp.sock,server=on,wait=off"),
        "-nographic",
        *("-m", "1024"),
        "-object",
        f"memory-backend-file,id=pytest-nixos-ram,size=1024M,share=off,mem-path={snapshot}/ram",
        *("-machine", "memory-backend=pytest-nixos-ram"),
        *("-incoming", "defer"),
    )
    assert clone.cwd == run_dir / "tmp"
    assert clone.disks == (
        Disk(name="disk.qcow2", kind=DiskKind.OVERLAY),
        Disk(name="tmp/store.img", kind=DiskKind.TEMPORARY),
        Disk(name="tmp/empty0.qcow2", kind=DiskKind.OVERLAY),
        Disk(name="efi-vars.fd", kind=DiskKind.COPY),
    )


def test_an_overlay_is_made_over_the_snapshots_disk() -> None:
    assert overlay_argv("/q/qemu-img", Path("/s/d"), Path("/r/d")) == (
        "/q/qemu-img",
        *("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "/s/d", "/r/d"),
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("-virtfs", "local,path=/x,mount_tag=x"), "shares a directory"),
        (("-tpmdev", "emulator,id=t"), "TPM"),
        (("-numa", "node"), "memory itself"),
        (("-object", "memory-backend-memfd,id=mem,share=on"), "memory itself"),
        (("-chardev", "socket,id=c", "-device", "vhost-user-fs-pci,chardev=c"), "vhost-user"),
        (("-hda", "/x.img"), "not a -drive"),
        (("-drive", "file=/home/me/data.img,format=raw"), "/home/me/data.img"),
    ],
)
def test_what_cannot_be_saved_is_told(words: tuple[str, ...], reason: str) -> None:
    assert reason in unsavable((*relative(), *words))


def test_a_disk_elsewhere_that_nobody_writes_to_can_stay() -> None:
    assert unsavable((*relative(), "-drive", "file=/home/me/iso,readonly=on")) == ""


@pytest.mark.parametrize(
    ("line", "options", "override", "expected"),
    [
        ("exec /q/qemu-kvm -cpu max -m 1024 -smp 1", "", None, 1024),
        ("mkdir -m 700 x\nexec /q/qemu-kvm -m 2G", "", None, 2048),
        ("exec /q/qemu-kvm -m 1024", "-m 3072", None, 3072),
        ("exec /q/qemu-kvm -m 1024", "-m 3072", 512, 512),
        ("exec /q/qemu-kvm -m size=1G,slots=2", "", None, None),
        ("exec /q/qemu-kvm", "", None, None),
    ],
)
def test_the_memory_is_what_qemu_will_take(
    tmp_path: Path, line: str, options: str, override: int | None, expected: int | None
) -> None:
    (tmp_path / "run").write_text(f"#!/bin/sh\n{line}\n")
    script = parse_run_script(tmp_path / "run")
    assert effective_memory_mib(script, {"QEMU_OPTS": options}, override) == expected


def test_a_script_that_lays_out_memory_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("exec /q/qemu-kvm -m 1 -object memory-backend-memfd,id=mem\n")
    script = parse_run_script(tmp_path / "run")
    assert "memory-backend-memfd" in unsavable_script(script, {})
    (tmp_path / "run").write_text("exec /q/qemu-kvm -m 1\n")
    script = parse_run_script(tmp_path / "run")
    assert unsavable_script(script, {}) == ""
    assert "-numa" in unsavable_script(script, {"QEMU_OPTS": "-numa node"})


SHOWN = """Id=logrotate.timer
ActiveState=active
NextElapseUSecRealtime=Sat 2026-11-21 06:00:00 UTC

Id=systemd-tmpfiles-clean.timer
ActiveState=active
NextElapseUSecRealtime=

Id=stopped.timer
ActiveState=inactive
NextElapseUSecRealtime=Sat 2026-11-21 07:00:00 UTC
"""
SIX = 1795240800.0


def test_calendar_timers_are_read() -> None:
    assert parse_timers(SHOWN) == {"logrotate.timer": SIX}


def test_a_short_sleep_leaves_the_timers_alone() -> None:
    guest = GuestAtRest(timers={"logrotate.timer": SIX})
    command = waking_command(guest, saved_at_s=SIX - 900, now_s=SIX - 300, entropy="ab")
    assert "timer" not in command
    assert f"date --utc --set=@{SIX - 300:.3f}" in command


@pytest.mark.parametrize("now_s", [SIX + 30 * 86400, SIX - 86400])
def test_after_a_jump_overdue_timers_begin_anew(now_s: float) -> None:
    guest = GuestAtRest(timers={"logrotate.timer": SIX, "$(evil).timer": SIX})
    lines = waking_command(guest, saved_at_s=SIX - 900, now_s=now_s, entropy="ab").splitlines()
    stop, clock, stamps, start = lines[1:5]
    assert stop == "systemctl stop '$(evil).timer' logrotate.timer"
    assert clock.startswith("date ")
    assert "/var/lib/systemd/timers/stamp-logrotate.timer" in stamps
    assert start == "systemctl start '$(evil).timer' logrotate.timer"


SAVED_NS = 1_796_000_000_123_456_789
IDLE, BUSY = "0.07 0.03 0.00 1/133 4711\n", "0.07 0.03 0.00 2/133 4711\n"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Return a guest's directory of links for units that run, marked as it stands."""
    units, mark = tmp_path / "units", tmp_path / "mark"
    units.mkdir()
    (units / "invocation:sshd.service").symlink_to("5c1e")
    mark.touch()
    for path in (units, mark):
        os.utime(path, ns=(SAVED_NS, SAVED_NS))
    return units


def test_a_guest_at_rest_whose_units_are_as_they_were_is_asked_nothing_more(units: Path) -> None:
    assert _said_at_rest(units, IDLE) == "at-rest\n"


def test_a_unit_that_failed_or_began_since_then_has_systemd_asked(units: Path) -> None:
    (units / "invocation:sshd.service").unlink()
    assert _said_at_rest(units, IDLE) == "NFailedUnits=1\n"


@pytest.mark.parametrize("later_ns", [1, -1])
def test_any_other_time_of_the_units_has_systemd_asked(units: Path, later_ns: int) -> None:
    os.utime(units, ns=(SAVED_NS, SAVED_NS + later_ns))
    assert _said_at_rest(units, IDLE) == "NFailedUnits=1\n"


@pytest.mark.parametrize("gone", ["mark", "units"])
def test_where_there_is_nothing_to_compare_systemd_is_asked(units: Path, gone: str) -> None:
    (units.parent / gone).rename(units.parent / "elsewhere")
    assert _said_at_rest(units, IDLE) == "NFailedUnits=1\n"


def test_a_guest_that_does_not_come_to_rest_has_systemd_asked(units: Path) -> None:
    assert _said_at_rest(units, BUSY) == "NFailedUnits=1\n"


def _said_at_rest(units: Path, load: str) -> str:
    """Run what a guest runs, where one unit has failed."""
    (units.parent / "load").write_text(load)
    text = at_rest_text(
        units=str(units), mark=str(units.parent / "mark"), load=str(units.parent / "load")
    )
    guest = f"systemctl() {{ echo NFailedUnits=1; }}\nexec {{idle}}<> <(:)\n{text}"
    done = subprocess.run(["bash", "-c", guest], capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def test_too_little_memory_is_told_with_both_figures() -> None:
    check_memory("h", guest_bytes=200 << 20, available=300 << 20)
    with pytest.raises(HostMemoryError, match="h: needs 296 MiB of memory, this machine has 100"):
        check_memory("h", guest_bytes=200 << 20, available=100 << 20)


def test_what_the_kernel_says_is_available_is_read(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   2048 kB\n")
    assert available_bytes(tmp_path / "meminfo") == 2 << 20
    assert available_bytes(tmp_path / "absent") is None
