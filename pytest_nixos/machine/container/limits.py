"""How much of this machine a container may take, and whether it came to that (cgroups(7), both
versions).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.local.memory import total_bytes
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.container.cgroup import CGROUP_PREFIX

__all__ = ["Limits", "OldGroups", "limits_of", "reached", "words"]

_TASKS = 16384
_SHARE = 0.5
_UNTOLD_BYTES = 4 << 30
_EMPTY_S = 2.0
# By controller of version 1: the file of the limit.
_OLD_LIMITS = {"memory": "memory.limit_in_bytes", "pids": "pids.max"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a container may take.

    :param memory_bytes: memory of all its processes, files in its tmpfs included; nothing is
        swapped.
    :param tasks: processes and threads.
    """

    memory_bytes: int
    tasks: int


def limits_of(spec: MachineSpec) -> Limits:
    """Tell a machine's limits: the memory that was asked for or that the host declares, else
    half of this machine's.
    """
    declared = None if spec.host.vm is None else spec.host.vm.memory_mib
    chosen = spec.memory_mib or declared
    most = int((total_bytes() or _UNTOLD_BYTES) * _SHARE)
    return Limits(memory_bytes=chosen << 20 if chosen else most, tasks=_TASKS)


class OldGroups:
    """Groups of a container in the hierarchies of cgroup v1 that hold ``memory`` and ``pids``,
    where there are any.

    :param name: with our prefix and this process's id.
    """

    def __init__(self, name: str, limits: Limits, *, proc: Path = Path("/proc")) -> None:
        self._name = name
        self.paths: dict[str, Path] = {}
        values = {"memory": limits.memory_bytes, "pids": limits.tasks}
        for controller, parent in _old_hierarchies(proc):
            _sweep(parent, proc)
            path = parent / name
            with contextlib.suppress(OSError):
                path.mkdir(mode=0o755, exist_ok=True)
                self.paths[controller] = path
                (path / _OLD_LIMITS[controller]).write_text(str(values[controller]))

    def remove(self) -> None:
        """Remove the groups; their processes have ended, or do so now."""

        def gone() -> bool | None:
            for path in self.paths.values():
                with contextlib.suppress(OSError):
                    path.rmdir()
            return None if any(path.exists() for path in self.paths.values()) else True

        poll(gone, deadline=Deadline.after(_EMPTY_S), interval_s=0.02)


def reached(unified: Path | None, old: Mapping[str, Path]) -> dict[str, int]:
    """Count how often a container came to its limits: ``memory`` (processes killed) and
    ``tasks`` (refused).
    """
    sources = [
        ("memory", old.get("memory"), "memory.oom_control", "oom_kill"),
        ("memory", unified, "memory.events", "oom_kill"),
        ("tasks", old.get("pids"), "pids.events", "max"),
        ("tasks", unified, "pids.events", "max"),
    ]
    found = {"memory": 0, "tasks": 0}
    for kind, directory, name, key in sources:
        if directory is not None:
            found[kind] += _count(directory / name, key)
    return found


def words(kind: str, limits: Limits) -> str:
    """Say that a limit was reached."""
    if kind == "memory":
        return (
            f"the container came to its limit of {limits.memory_bytes >> 20} MiB of memory, processes of it were killed; "
            "more is given by --nixos-memory"
        )
    return f"the container came to its limit of {limits.tasks} processes and threads"


def _count(path: Path, key: str) -> int:
    try:
        rows = (line.split() for line in path.read_text().splitlines())
        return next((int(row[1]) for row in rows if row[:1] == [key]), 0)
    except (OSError, ValueError, IndexError):
        return 0


def _old_hierarchies(proc: Path) -> Iterator[tuple[str, Path]]:
    """Find each controller's hierarchy, and in it this process's own group, below which new ones
    belong.
    """
    own: dict[str, str] = {}
    for line in _lines(proc / "self/cgroup"):
        _, names, group = line.split(":", 2)
        own |= dict.fromkeys(names.split(","), group)
    for line in _lines(proc / "self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(kind) < 3 or kind[0] != "cgroup" or len(fields) < 5:
            continue
        mount = Path(fields[4])
        for controller in kind[2].split(","):
            if controller in _OLD_LIMITS:
                inside = own.get(controller, "/").removeprefix(fields[3].rstrip("/"))
                path = mount / inside.strip("/")
                yield controller, path if path.is_dir() and ".." not in path.parts else mount


def _sweep(parent: Path, proc: Path) -> None:
    """Remove groups that killed sessions left; their names tell whose they were."""
    for path in parent.glob(f"{CGROUP_PREFIX}*"):
        owner = path.name.removeprefix(CGROUP_PREFIX).partition("-")[0]
        if not (proc / owner).exists():
            with contextlib.suppress(OSError):
                os.rmdir(path)  # noqa: PTH106 - Path.rmdir is the same


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
