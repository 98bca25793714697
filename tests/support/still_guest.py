"""A QEMU that stands still, whose disks are written to by its monitor as a guest would."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.qemu.filters import GuestDisk, writable_disks
from pytest_nixos.machine.qemu.qmp import QmpMonitor
from pytest_nixos.machine.serial_process import SerialProcess
from tests.support.qemu import qemu_program

__all__ = ["BLOCK", "SIZE", "StillGuest"]

SIZE = 1 << 20
BLOCK = 4096


class StillGuest:
    """A QEMU that stands still, whose disks are written to by its monitor."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        program = qemu_program()
        assert program
        self.folder = folder
        for name in ("disk", "sda", "store"):
            (folder / name).write_bytes(bytes(SIZE))
        more = ",read-only=on" if read_only else ""
        self.process = SerialProcess(
            (
                *(program, "-machine", "pc,accel=tcg", "-S", "-nodefaults", "-display", "none"),
                *("-drive", f"file={folder}/disk,format=raw,if=none,id=drive1{more}"),
                *("-device", "virtio-blk-pci,drive=drive1", "-device", "virtio-scsi-pci"),
                *("-drive", f"file={folder}/sda,format=raw,if=none,id=pytest-nixos-sda{more}"),
                *("-device", "scsi-hd,drive=pytest-nixos-sda,id=pytest-nixos-disk-sda"),
                *("-drive", f"file={folder}/store,format=raw,if=none,id=nix-store,snapshot=on"),
                *("-device", "virtio-blk-pci,drive=nix-store"),
                *("-qmp", f"unix:{folder}/q,server=on,wait=off"),
            ),
            env=dict(os.environ),
            cwd=folder,
            console=Console(),
        )
        self.monitor = QmpMonitor(folder / "q", on_event=lambda _name, _data: None)
        self.process.start()
        self.monitor.start()

    @property
    def disks(self) -> dict[str, GuestDisk]:
        found = writable_disks(self.monitor, self.folder / "disk", deadline=Deadline.after(60))
        return {disk.name: disk for disk in found}

    def order(self, words: str, disk: str = "drive1") -> None:
        """Do something to a disk as the guest would (qemu-io's words)."""
        command = {"command-line": f'qemu-io {disk} "{words}"'}
        self.monitor.execute("human-monitor-command", command, deadline=Deadline.after(60))

    def stop(self) -> None:
        self.monitor.close()
        self.process.stop(grace_s=0.0)
