"""A running QEMU as the host machine's kernel sees it: its command line, its directory, its use
of the processor.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Self

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline

__all__ = ["QemuCommand", "await_idle", "private_bytes"]

_SAMPLE_S = 0.4
# Of one processor. An idle guest that TCG runs takes a few per cent.
_IDLE_SHARE = 0.3


class QemuCommand(msgspec.Struct, frozen=True, kw_only=True):
    """How a QEMU was really started, whatever scripts and wrappers led to it."""

    argv: tuple[str, ...]
    cwd: str

    @classmethod
    def of(cls, pid: int, *, proc: Path = Path("/proc")) -> Self:
        """Read it from the kernel.

        :raises MachineError: if the process is gone, or is no QEMU.
        """
        place = proc / str(pid)
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")[:-1]
            cwd, program = str((place / "cwd").readlink()), str((place / "exe").readlink())
        except OSError as err:
            raise _no_qemu(pid, err.strerror) from err
        argv = tuple(os.fsdecode(word) for word in words)
        if not argv or "qemu" not in Path(argv[0]).name + Path(program).name:
            raise _no_qemu(pid, f"it is {program}")
        # The name that it was started by leads to a wrapper that sets what the program needs.
        first = argv[0] if argv[0].startswith("/") and os.access(argv[0], os.X_OK) else program
        return cls(argv=(first, *argv[1:]), cwd=cwd)


def await_idle(pid: int, *, deadline: Deadline, proc: Path = Path("/proc")) -> bool:
    """Wait until a process uses little of the processors; return whether it came to that."""
    used_s = _used_s(pid, proc)
    while not deadline.expired:
        time.sleep(_SAMPLE_S)
        before_s, used_s = used_s, _used_s(pid, proc)
        if used_s - before_s < _IDLE_SHARE * _SAMPLE_S:
            return True
    return False


def private_bytes(pid: int, *, proc: Path = Path("/proc")) -> int:
    """Return the private memory of a process: what would be free without it."""
    try:
        lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    rows = (line.split() for line in lines if line.startswith("Private_"))
    return sum(int(row[1]) for row in rows) * 1024


def _used_s(pid: int, proc: Path) -> float:
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _no_qemu(pid: int, why: str | None) -> MachineError:
    return MachineError(
        f"process {pid} is not the QEMU that the run script starts: {why}",
        remedy="nothing: the machine is used without a snapshot",
    )
