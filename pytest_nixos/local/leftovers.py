"""Find and end processes that left their group, by a variable that only their start gave them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from pytest_nixos.local.timing import Deadline, poll

__all__ = ["end_marked_processes", "marked_processes"]

_KILLED_S = 5.0


def marked_processes(variable: str, value: str, *, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """List processes of this user whose start environment holds ``variable=value``.

    A daemon such as ``swtpm --daemon`` leaves its process group and session, but not its
    environment.
    """
    entry = os.fsencode(f"{variable}={value}")
    pids = [int(path.name) for path in proc.iterdir() if path.name.isdigit()]
    return tuple(pid for pid in pids if entry in _environment(proc / str(pid)))


def end_marked_processes(variable: str, value: str, *, grace_s: float = 1.0) -> None:
    """End those processes: SIGTERM, then SIGKILL after `grace_s` seconds."""

    def gone() -> bool | None:
        return True if not marked_processes(variable, value) else None

    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in marked_processes(variable, value):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        # SIGKILL may take its time on a machine under load, but it is never refused.
        limit_s = grace_s if number == signal.SIGTERM else _KILLED_S
        if poll(gone, deadline=Deadline.after(limit_s), interval_s=0.02):
            return


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
