"""Make a snapshot's files of a running machine, which ends with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.local.sparse_file import move_sparse
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.qemu.process import QemuCommand, await_idle
from pytest_nixos.machine.snapshot.clone import relative_argv, saved_disks, unsavable
from pytest_nixos.machine.snapshot.quiesce import look_at_guest
from pytest_nixos.machine.snapshot.record import MEMORY, STATE, GuestAtRest, SnapshotRecord
from pytest_nixos.machine.snapshot.sealed_file import SealedFile

__all__ = ["Savable", "SnapshotSaving"]

_LIMIT_S = 120.0
_IDLE_LIMIT_S = 15.0
_END_S = 10.0


class Savable(Protocol):
    """A running VM whose memory lies in a file."""

    @property
    def pid(self) -> int: ...

    @property
    def console(self) -> Console: ...

    @property
    def transport(self) -> Transport: ...

    def save(self, state: Path, *, deadline: Deadline) -> None:
        """Stop the guest and write QEMU's state to a file."""
        ...

    def thaw(self) -> None:
        """Let the guest go on."""
        ...

    def end(self, *, deadline: Deadline) -> None:
        """End QEMU in order; its disks stay."""
        ...


class SnapshotSaving(msgspec.Struct, frozen=True, kw_only=True):
    """One machine about to be saved.

    :param draft: directory of the snapshot to be; the guest's memory lies in it already.
    """

    key: str
    name: str
    parts: Mapping[str, str]
    run_dir: Path
    draft: Path
    memory_mib: int

    def save(self, machine: Savable, *, deadline: Deadline) -> SnapshotRecord:
        """Save the machine; it has ended afterwards, unless it could not be saved: then it goes on.

        :raises MachineError: if it cannot be saved.
        :raises OSError: if there is no room for its disks; it has ended.
        """
        limit = deadline.within(_LIMIT_S)
        command = QemuCommand.of(machine.pid)
        argv = self._relative(command.argv)
        refusal = unsavable(argv)
        if refusal:
            raise MachineError(refusal, remedy="nothing: the machine is used without a snapshot")
        await_idle(machine.pid, deadline=limit.within(_IDLE_LIMIT_S))
        guest = look_at_guest(machine.transport, deadline=limit)
        saved_at_s, boot_s = time.time(), machine.console.elapsed_s
        try:
            machine.save(self.draft / STATE, deadline=limit)
        except MachineError:
            with contextlib.suppress(MachineError):
                machine.thaw()
            raise
        machine.end(deadline=Deadline.after(_END_S))
        disks = saved_disks(argv)
        for name in disks:
            move_sparse(self.run_dir / name, self.draft / name)
        return self._record(
            argv,
            self._relative((command.cwd,))[0],
            disks,
            guest,
            machine.console,
            saved_at_s,
            boot_s,
        )

    def _relative(self, words: tuple[str, ...]) -> tuple[str, ...]:
        return relative_argv(words, run_dir=self.run_dir, memory=self.draft / MEMORY)

    def _record(
        self,
        argv: tuple[str, ...],
        cwd: str,
        disks: tuple[str, ...],
        guest: GuestAtRest,
        console: Console,
        saved_at_s: float,
        boot_s: float,
    ) -> SnapshotRecord:
        return SnapshotRecord(
            key=self.key,
            host=self.name,
            parts=self.parts,
            argv=argv,
            cwd=cwd,
            memory_mib=self.memory_mib,
            saved_at_s=saved_at_s,
            boot_s=boot_s,
            guest=guest,
            console=console.lines,
            files=tuple(SealedFile.seal(self.draft, name) for name in (MEMORY, STATE, *disks)),
        )
