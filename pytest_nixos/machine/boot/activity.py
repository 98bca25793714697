"""Whether a guest does anything: a boot that waits is told from one that works slowly.

On a slow machine the guest's processors are busy, not idle: what takes long there is work. A unit
that asks for ever whether something has come uses a little of its processor all the time, so its
own usage does not tell; the guest as a whole does.

Sources: proc_stat(5), proc_pid_net(5), Documentation/admin-guide/iostats.rst of the kernel.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Self

__all__ = ["ACTIVITY", "Activity", "Stillness"]

#: Command of the guest whose output :meth:`Activity.parse` reads.
ACTIVITY = "head -n 1 /proc/stat; cat /proc/diskstats /proc/net/dev"

_IDLE = 3  # after it iowait, which is not idle: somebody waits for a disk
_TICKS = 8
_SECTOR = 512
_IDLE_SHARE = 0.8
# Journal and timers write a little all the time.
_MOST_BYTES_S = 16 * 1024
_MEMORY_DISKS = ("loop", "ram", "zram")


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Counters of a guest since its start.

    :param idle: ticks of its processors without work, of `ticks` in all.
    :param moved_bytes: read and written on disks, received and sent on networks.
    """

    idle: int
    ticks: int
    moved_bytes: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what :data:`ACTIVITY` prints; ``None`` where it says nothing of processors."""
        rows = [line.split() for line in text.splitlines()]
        if not rows or rows[0][:1] != ["cpu"]:
            return None
        ticks = [int(word) for word in rows[0][1 : _TICKS + 1] if word.isdecimal()]
        if len(ticks) < _TICKS:
            return None
        moved = sum(_moved(row) for row in rows[1:])
        return cls(idle=ticks[_IDLE], ticks=sum(ticks), moved_bytes=moved)

    def is_still(self, later: Activity, *, span_s: float) -> bool:
        """Whether nothing was done from here to `later`."""
        ticks = later.ticks - self.ticks
        if ticks <= 0:
            return False
        idle = (later.idle - self.idle) / ticks
        return idle >= _IDLE_SHARE and later.moved_bytes - self.moved_bytes <= _MOST_BYTES_S * max(
            span_s, 1.0
        )


class Stillness:
    """For how long a guest has done nothing, look by look."""

    def __init__(self) -> None:
        self._last: tuple[float, Activity] | None = None
        self._since_s: float | None = None

    def forget(self) -> None:
        """Begin anew: the boot has moved."""
        self._last = self._since_s = None

    def seconds(self, found: Activity | None) -> float:
        """Take a look; return for how many seconds all looks have found nothing done."""
        now_s = time.monotonic()
        if found is None:
            self.forget()
            return 0.0
        last, self._last = self._last, (now_s, found)
        if last is None or not last[1].is_still(found, span_s=now_s - last[0]):
            self._since_s = now_s
        return now_s - (self._since_s if self._since_s is not None else now_s)


def _moved(row: list[str]) -> int:
    if len(row) > 9 and row[0].isdecimal() and not row[2].startswith(_MEMORY_DISKS):
        return _SECTOR * sum(int(row[column]) for column in (5, 9) if row[column].isdecimal())
    if row and row[0].endswith(":") and row[0] != "lo:":
        return sum(int(word) for word in itertools.islice(row, 1, 10, 8) if word.isdecimal())
    return 0
