"""How fast this machine is, measured: the one factor by which limits that were made for an idle machine grow.

Limits tell a hung machine from a slow one. Made for the machines of this project (two cores, no neighbours), they would call
a machine with four neighbours broken. A fixed piece of work is timed; how much longer it takes is the factor. What a user
sets is never changed, only defaults are.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Pace", "measure_pace"]

# What the work takes on an idle core of 2020 (3 GHz, CPython 3.11).
_PLANNED_S = 0.05
_STEPS = 600_000
_TRIES = 3
# Below it is the difference between two processors, and not worth a word; above it waiting would have no end.
_LEAST = 1.5
_MOST = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much more time things take here than limits were made for.

    :param factor: from 1 to 10.
    """

    factor: float = 1.0

    def limit(self, limit_s: float) -> float:
        """Return a limit in seconds as it is here."""
        return limit_s * self.factor

    @property
    def words(self) -> str:
        """What to tell people once, ``""`` where nothing is slow."""
        if self.factor <= 1:
            return ""
        return f"this machine is {self.factor:g} times slower than planned (or busy): limits are {self.factor:g} times longer"


def measure_pace(work: Callable[[], object] | None = None) -> Pace:
    """Time a fixed piece of work, some 0.2 s on an idle machine.

    :param work: another piece of work that is planned to take 50 ms.
    """
    taken_s = [_timed(work or _work) for _ in range(_TRIES)]
    factor = round(min(_MOST, statistics.median(taken_s) / _PLANNED_S), 1)
    return Pace(factor=factor) if factor >= _LEAST else Pace()


def _timed(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _work() -> int:
    value = 1
    for _ in range(_STEPS):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return value
