"""Control groups of containers, in the unified hierarchy (cgroups(7)), as the host machine sees
them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pytest_nixos.local.timing import Deadline, poll

__all__ = [
    "CGROUP_PREFIX",
    "ContainerCgroup",
    "has_unified_cgroup",
]

CGROUP_PREFIX = "pytest-nixos-"

_MOUNT = Path("/sys/fs/cgroup")
# Where systemd's hybrid layout keeps the unified hierarchy.
_HYBRID_MOUNT = _MOUNT / "unified"
# What systemd-nspawn makes for the guest below its own group (create_subcgroup of
# src/nspawn/nspawn-cgroup.c).
_PAYLOAD = "payload"
_EMPTY_S = 2.0


class ContainerCgroup:
    """The cgroup that was made for one container, if one was.

    Where this machine has no unified hierarchy mounted, only the container's surroundings see it:
    it is reached through the root directory of a process there, and kept open so that it outlives
    that process.

    :param name: its name below the root of the hierarchy, with our prefix; need not exist (yet).
    """

    def __init__(self, name: str) -> None:
        if not name.startswith(CGROUP_PREFIX) or "/" in name:
            raise ValueError(f"{name!r}: not the name of a cgroup of ours")
        self._name = name
        self._descriptor = -1

    def of_container(self, surroundings_pid: int) -> Path | None:
        """Return the group with all processes of the container, systemd-nspawn's own included;
        ``None`` if it has none.

        Nothing that the guest can change is asked.

        :param surroundings_pid: the process that waits for systemd-nspawn and sees the hierarchy at
            ``/sys/fs/cgroup``.
        """
        if not self._open(Path(f"/proc/{surroundings_pid}/root{_MOUNT}")):
            return None
        path = (_unified_cgroup(surroundings_pid) or "").strip("/")
        # A container in the root cgroup has none of its own.
        if not path or ".." in path:
            return None
        own = self._root() / path
        return own if (own / "cgroup.procs").exists() else None

    def of_guest(self, surroundings_pid: int) -> Path | None:
        """Return the group with the guest's processes and no other; see :meth:`of_container`."""
        own = self.of_container(surroundings_pid)
        payload = None if own is None else own / _PAYLOAD
        return payload if payload is not None and payload.is_dir() else None

    def remove(self) -> None:
        """Kill what is left in the cgroup and remove it."""
        roots = [self._root()] if self._descriptor >= 0 else [_MOUNT, _HYBRID_MOUNT]
        for root in roots:
            _remove(root / self._name)
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open(self, path: Path) -> bool:
        if self._descriptor < 0:
            with contextlib.suppress(OSError):
                self._descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._descriptor >= 0

    def _root(self) -> Path:
        # Not /proc/self: the path is also given to child processes.
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")


def has_unified_cgroup(*, mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether ``/sys/fs/cgroup`` is the unified hierarchy."""
    found = ""
    for line in mountinfo.read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) > 4 and fields[4] == str(_MOUNT):
            found = after.partition(" ")[0]
    return found == "cgroup2"


def _unified_cgroup(pid: int, *, proc: Path = Path("/proc")) -> str | None:
    """Return the path of a process in the unified hierarchy (``/a/b``), ``None`` without one."""
    try:
        text = (proc / str(pid) / "cgroup").read_text(errors="replace")
    except OSError:
        return None
    paths = (line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::"))
    return next(paths, None)


def _remove(path: Path) -> None:
    if not (path / "cgroup.procs").exists():
        return
    with contextlib.suppress(OSError):
        (path / "cgroup.kill").write_text("1")

    def gone() -> bool | None:
        for directory, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
        return None if path.exists() else True

    # Killed processes leave their cgroup a moment later.
    poll(gone, deadline=Deadline.after(_EMPTY_S), interval_s=0.02)
