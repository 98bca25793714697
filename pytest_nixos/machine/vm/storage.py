"""The disks of a running VM, as something can go wrong with them: errors, and a write cache whose
content is lost with the power.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import LostWrites
from pytest_nixos.machine.disks.qemu_img import run_qemu_img
from pytest_nixos.machine.qemu.filters import (
    GuestDisk,
    failing,
    logging_to,
    put_filter,
    take_filter,
    writable_disks,
)
from pytest_nixos.machine.qemu.qmp import QmpMonitor
from pytest_nixos.machine.qemu.write_log import replay

__all__ = ["ImageTool", "VmStorage"]

_ORDER_S = 30.0
_END_S = 10.0
# qemu-vm.nix calls the image of the store so: erofs or squashfs, which nobody writes to.
_STORE = "nix-store"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class ImageTool(msgspec.Struct, frozen=True, kw_only=True):
    """A qemu-img and where it runs.

    :param program: ``""`` where there is none.
    """

    program: str
    runner: Runner

    def convert(
        self, source: Path, target: Path, *, formats: tuple[str, str], deadline: Deadline
    ) -> None:
        """Copy an image, one that a VM has open too.

        :param formats: of the image and of the copy; what a guest wrote to a raw one does not say.
        :raises MachineError: if that fails.
        """
        names = ("-f", formats[0], "-O", formats[1], str(source), str(target))
        argv = (self.program, "convert", "-q", "-U", *names)
        run_qemu_img(self.runner, argv, target, limit_s=deadline.remaining_s)


class VmStorage:
    """The disks of one VM.

    :param run_dir: the directory that QEMU writes to.
    :param first: the image of ``vda``.
    :param monitor: the monitor of the QEMU that runs at the time.
    :param pid: of that QEMU.
    :param await_end: waits so many seconds until it is gone.
    """

    def __init__(
        self,
        run_dir: Path,
        first: Path,
        tool: ImageTool,
        *,
        monitor: Callable[[], QmpMonitor],
        pid: Callable[[], int],
        await_end: Callable[[float], object],
    ) -> None:
        self._run_dir, self._first, self._tool = run_dir, first, tool
        self._monitor, self._pid, self._await_end = monitor, pid, await_end
        # What is before a disk of which QEMU; another one has none of it.
        self._filtered: list[tuple[QmpMonitor, GuestDisk]] = []
        self._logged: tuple[GuestDisk, ...] = ()

    def log_writes(self, *, deadline: Deadline) -> None:
        """Write down what the guest writes and flushes, beside an image of each disk as it is."""
        self._refuse_second()
        if not self._tool.program:
            raise MachineError(
                f"{self._run_dir}: no qemu-img in the host's closure nor on PATH, to copy disks with",
                remedy="keep virtualisation.qemu.package a QEMU with its tools",
            )
        monitor = self._monitor()
        found = writable_disks(monitor, self._first, deadline=deadline)
        disks = tuple(d for d in found if not d.is_temporary and d.name != _STORE)
        if not disks:
            raise MachineError("the VM has no disk that it writes to", remedy="give it a disk")
        for disk in disks:
            self._refuse_elsewhere(disk)
        monitor.execute("stop", deadline=deadline)
        try:
            for disk in disks:
                self._tool.convert(
                    disk.file,
                    self._before(disk),
                    formats=(disk.image_format, "raw"),
                    deadline=deadline,
                )
                # QEMU may have put something there.
                os.close(os.open(self._log(disk), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                self._put(monitor, disk, logging_to(self._log(disk)), deadline)
            self._logged = disks
        finally:
            monitor.execute("cont", deadline=Deadline.after(_ORDER_S))

    def stop_logging(self) -> None:
        """Take the logs out and remove them."""
        self._take_all()
        for disk in self._logged:
            self._before(disk).unlink(missing_ok=True)
            self._log(disk).unlink(missing_ok=True)
        self._logged = ()

    def lose_writes(
        self, *, survive: float, seed: int, deadline: Deadline
    ) -> tuple[LostWrites, ...]:
        """Kill QEMU, and make each disk anew of what the guest had flushed."""
        if not self._logged:
            raise MachineError(
                "what the guest writes is not written down (any more)",
                remedy="lose the power once within the fault",
            )
        # No SIGTERM: QEMU would flush for the guest.
        if pid := self._pid():
            os.kill(pid, signal.SIGKILL)
        self._await_end(_END_S)
        lost = []
        for disk in self._logged:
            before = self._before(disk)
            lost.append(replay(self._log(disk), before, disk=disk.name, survive=survive, seed=seed))
            self._tool.convert(
                before, disk.file, formats=("raw", disk.image_format), deadline=deadline
            )
        self.stop_logging()
        return tuple(lost)

    def fail(self, disk: str, *, kinds: tuple[str, ...]) -> None:
        """Put a filter before a disk by which its operations end with EIO."""
        self._refuse_second()
        monitor, deadline = self._monitor(), Deadline.after(_ORDER_S)
        known = {d.name: d for d in writable_disks(monitor, self._first, deadline=deadline)}
        if disk not in known:
            raise MachineError(
                f"the VM has no disk {disk} that it writes to; there are: {', '.join(sorted(known)) or 'none'}",
                remedy="name one of these",
            )
        self._put(monitor, known[disk], failing(kinds), deadline)

    def mend(self) -> None:
        """Take that filter out."""
        self._take_all()

    def _put(
        self,
        monitor: QmpMonitor,
        disk: GuestDisk,
        options: Mapping[str, object],
        deadline: Deadline,
    ) -> None:
        put_filter(monitor, disk, options, deadline=deadline)
        self._filtered.append((monitor, disk))

    def _take_all(self) -> None:
        while self._filtered:
            monitor, disk = self._filtered.pop()
            if monitor is self._monitor() and self._pid():
                take_filter(monitor, disk, deadline=Deadline.after(_ORDER_S))

    def _refuse_second(self) -> None:
        if self._filtered:
            raise MachineError(
                "another fault stands between the VM and its disks",
                remedy="let one of failing_disk and volatile_write_cache end before the other begins",
            )

    def _refuse_elsewhere(self, disk: GuestDisk) -> None:
        # QEMU says where its image is, and its word is no more than the flake's.
        if disk.file.parent != self._run_dir or not _NAME.fullmatch(disk.name):
            raise MachineError(
                f"the VM's disk {disk.name} lies outside of its run directory: {disk.file}",
                remedy="leave the disk to virtualisation.diskSize and --nixos-disks; a raw device cannot lose writes",
            )

    def _before(self, disk: GuestDisk) -> Path:
        return self._run_dir / f"{disk.name}.before"

    def _log(self, disk: GuestDisk) -> Path:
        return self._run_dir / f"{disk.name}.writes"
