"""What the machines of this process weigh and use, read beside them."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

__all__ = ["memory_mib", "processor_s", "used_s"]

_TICKS = os.sysconf("SC_CLK_TCK")


def memory_mib() -> float:
    """Add up the proportional set sizes of this process's QEMUs."""
    total_kib = 0
    for pid in _machines():
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kib / 1024


def processor_s() -> tuple[float, float]:
    """Return the processor time of this process with all that it started and that has ended, and of
    its QEMUs.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used), sum(map(used_s, _machines()))


def used_s(pid: int) -> float:
    """Return the processor time of a process, 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machines() -> Iterator[int]:
    for pid in _descendants(os.getpid()):
        try:
            if b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid
        except OSError:
            continue


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found
