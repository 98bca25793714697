"""Find and end processes that left their group, by a variable that only their start gave them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from pytest_nixos.local.timing import Deadline, poll

# linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (64-bit), FS_IMMUTABLE_FL.
_GET_FLAGS = 0x80086601
_SET_FLAGS = 0x40086602
_IMMUTABLE = 0x10

__all__ = ["end_marked_processes", "marked_processes", "remove_tree"]

_KILLED_S = 5.0


def marked_processes(variable: str, value: str, *, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """List processes of this user whose start environment holds ``variable=value``.

    A daemon such as ``swtpm --daemon`` leaves its process group and session, but not its environment.
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


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it, directories without write permission or with ``chattr +i`` included."""

    def retry(function: Callable[[str], object], name: str, _error: object) -> None:
        # Never through a symbolic link: what it points to is not ours.
        with contextlib.suppress(OSError):
            failed = Path(name)
            _make_mutable(failed)
            failed.parent.chmod(stat.S_IRWXU)
            if stat.S_ISDIR(failed.lstat().st_mode):
                failed.chmod(stat.S_IRWXU)
                shutil.rmtree(name, ignore_errors=True)
            else:
                function(name)

    shutil.rmtree(path, onerror=retry)


def _make_mutable(path: Path) -> None:
    """Take ``chattr +i`` off a directory: NixOS' activation protects a container's /var/empty with it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            flags = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, struct.pack("l", 0)))[0]
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags & ~_IMMUTABLE))
        finally:
            os.close(descriptor)


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
