"""Whether a guest does anything: a boot that waits is told from one that works slowly.

On a slow machine the guest's processors are busy, not idle: what takes long there is work. A unit
that asks for ever whether something has come uses a little of its processor all the time, so its
own usage does not tell; the guest as a whole does.

Sources: proc_stat(5), proc_pid_net(5), Documentation/admin-guide/iostats.rst of the kernel.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec

__all__ = ["ACTIVITY", "Activity", "Stillness"]

#: Command of the guest whose output :meth:`Activity.parse` reads. Its control group is not the root
#: one in a container, where /proc/stat and /proc/diskstats tell of the machine below.
ACTIVITY = """\
g=/sys/fs/cgroup; echo "own $(head -n 1 $g/pytest-nixos-channel.service/cpu.stat)"
if [ -e $g/cgroup.type ]; then
  echo "up $(cat /proc/uptime)"; head -n 1 $g/cpu.stat; head -n 1 $g/io.pressure; cat /proc/net/dev
else
  head -n 1 /proc/stat; cat /proc/diskstats /proc/net/dev
fi 2>/dev/null
"""

_IDLE = 3  # after it iowait, which is not idle: somebody waits for a disk
_TICKS = 8
_TICK_US = 10_000  # USER_HZ is 100 on every architecture that NixOS has
_SECTOR = 512
_IDLE_SHARE = 0.8
# Journal and timers write a little all the time.
_MOST_BYTES_S = 16 * 1024
_MEMORY_DISKS = ("loop", "ram", "zram")


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of a guest since its start.

    :param idle_us: its processors' time without work but our own questions, of `all_us`; of a
        container against one processor.
    :param moved_bytes: read and written on disks, received and sent on networks.
    """

    idle_us: int
    all_us: int
    moved_bytes: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what :data:`ACTIVITY` prints; ``None`` where it says nothing of processors."""
        rows = [row for line in text.splitlines() if (row := line.split())]
        first = {row[0]: row[1:] for row in reversed(rows)}
        times = _of_machine(first) or _of_container(first)
        if times is None:
            return None
        own_us = _number(first.get("own", []), 1)
        moved = sum(_moved(row) for row in rows)
        return cls(idle_us=times[0] + own_us, all_us=times[1], moved_bytes=moved)

    def is_still(self, later: Activity, *, span_s: float) -> bool:
        """Whether nothing was done from here to `later`."""
        all_us = later.all_us - self.all_us
        if all_us <= 0:
            return False
        moved = later.moved_bytes - self.moved_bytes
        idle = (later.idle_us - self.idle_us) / all_us
        return idle >= _IDLE_SHARE and moved <= _MOST_BYTES_S * max(span_s, 1.0)


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


def _of_machine(first: Mapping[str, list[str]]) -> tuple[int, int] | None:
    """Return idle and all time of a machine's processors, in microseconds."""
    ticks = [int(word) for word in first.get("cpu", [])[:_TICKS] if word.isdecimal()]
    if len(ticks) < _TICKS:
        return None
    return ticks[_IDLE] * _TICK_US, sum(ticks) * _TICK_US


def _of_container(first: Mapping[str, list[str]]) -> tuple[int, int] | None:
    """Return the same of a control group: time that passed, without what it used or waited for a
    disk.
    """
    up = first.get("up", [""])[0].replace(".", "", 1)
    if not up.isdecimal() or "usage_usec" not in first:
        return None
    all_us = int(up) * _TICK_US  # hundredths of a second
    waited = next((word[6:] for word in first.get("some", []) if word.startswith("total=")), "")
    waited_us = int(waited) if waited.isdecimal() else 0
    return all_us - _number(first["usage_usec"], 0) - waited_us, all_us


def _number(words: Sequence[str], at: int) -> int:
    return int(words[at]) if len(words) > at and words[at].isdecimal() else 0


def _moved(row: list[str]) -> int:
    if len(row) > 9 and row[0].isdecimal() and not row[2].startswith(_MEMORY_DISKS):
        return _SECTOR * sum(int(row[column]) for column in (5, 9) if row[column].isdecimal())
    if row and row[0].endswith(":") and row[0] != "lo:":
        return sum(int(word) for word in itertools.islice(row, 1, 10, 8) if word.isdecimal())
    return 0
