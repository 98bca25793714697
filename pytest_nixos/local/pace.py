"""How fast this machine is, measured: the one factor by which default limits grow, and how hard
it was pressed meanwhile.

Limits tell a hung machine from a slow one. Made for the machines of this project (two cores, no
neighbours), they would call a machine with four neighbours broken. A fixed piece of work is timed;
how much longer it takes is the factor. What a user sets is never changed, only defaults are.
Neighbours come and go, so it is timed again when a machine starts and now and then while one runs,
at most once a minute.

What a slow answer of a guest is read against is the pressure: /proc/pressure/cpu ("some": share of
time in which a process waited for a processor; Documentation/accounting/psi.rst) and the field
steal of /proc/stat (time that a hypervisor gave to others; proc(5)).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import msgspec

__all__ = ["Pace", "Pacer", "Pressure", "PressureMark", "measure_pace"]

# What the work takes on an idle core of 2020 (3 GHz, CPython 3.11).
_PLANNED_S = 0.02
_STEPS = 240_000
_TRIES = 3
# Share of the time for which work had a processor that nobody else wanted.
_UNDISTURBED = 0.95
# Below it is the difference between two processors, and not worth a word; above it waiting would
# have no end.
_LEAST = 1.5
_MOST = 10.0

# For how long a measured pace holds.
_HOLDS_S = 60.0

_STEAL = 7
_WAITED = 0.5
_STOLEN = 0.1


class Pace(msgspec.Struct, frozen=True, kw_only=True):
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
    """Time a fixed piece of work, some 20 ms: once where it takes as long as planned, or where it
    had a processor all the while; three times where it waited for one, for which a moment's
    neighbour may be the reason.

    :param work: another piece of work that is planned to take 20 ms.
    """
    first_s, had_s = _timed(work or _work)
    if _factor(first_s) < _LEAST:
        return Pace()
    if had_s >= first_s * _UNDISTURBED:
        return Pace(factor=_factor(first_s))
    taken_s = (first_s, *(_timed(work or _work)[0] for _ in range(_TRIES - 1)))
    factor = _factor(sorted(taken_s)[_TRIES // 2])
    return Pace(factor=factor) if factor >= _LEAST else Pace()


def _factor(taken_s: float) -> float:
    return round(min(_MOST, taken_s / _PLANNED_S), 1)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return how long it took, and how much of that it had a processor."""
    had_s, started_s = time.thread_time(), time.perf_counter()
    work()
    return time.perf_counter() - started_s, time.thread_time() - had_s


def _work() -> int:
    value = 1
    for _ in range(_STEPS):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return value


class Pacer:
    """How slow this machine is by now.

    :param first: what is known already; it is measured when it is first asked for without.
    :param measure: measures it.
    """

    def __init__(
        self, first: Pace | None = None, *, measure: Callable[[], Pace] | None = None
    ) -> None:
        self._measure = measure or measure_pace
        self._least = first or Pace()
        self._pace = first
        self._at_s = time.monotonic()

    def now(self) -> Pace:
        """Return it, measured at most a minute ago; never faster than it was at first, since who
        was busy then may be so again.
        """
        if self._pace is None or time.monotonic() - self._at_s >= _HOLDS_S:
            return self.renew()
        return self._pace

    def renew(self) -> Pace:
        """Measure it and return it."""
        measured = self._measure()
        self._pace = max(measured, self._least, key=lambda pace: pace.factor)
        self._at_s = time.monotonic()
        return self._pace


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of a span of time, from 0 to 1; ``None`` where the kernel does not tell.

    :param waited: in which at least one process waited for a processor.
    :param stolen: that the hypervisor below gave to others.
    :param span_s: length of the span.
    """

    waited: float | None
    stolen: float | None
    span_s: float

    @property
    def words(self) -> str:
        """What to tell beside a finding about time, ``""`` where the machine was not pressed."""
        told = []
        if self.waited is not None and self.waited >= _WAITED:
            told.append(f"processes waited for a processor {self.waited:.0%} of the time")
        if self.stolen is not None and self.stolen >= _STOLEN:
            told.append(f"{self.stolen:.0%} of the processors' time went to other machines")
        return f"this machine was busy: {', '.join(told)}" if told else ""

    @classmethod
    def from_json(cls, shares: Mapping[str, float | None]) -> Self:
        """Read back what :meth:`to_json` wrote."""
        return cls(
            waited=shares.get("waited"),
            stolen=shares.get("stolen"),
            span_s=shares.get("span_s") or 0.0,
        )

    def to_json(self) -> dict[str, float | None]:
        """Return the shares for a report."""
        return {
            "waited": None if self.waited is None else round(self.waited, 3),
            "stolen": None if self.stolen is None else round(self.stolen, 3),
            "span_s": round(self.span_s, 1),
        }


class PressureMark(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's counters at one moment."""

    at_s: float
    waited_us: int | None
    stolen: int | None
    ticks: int | None

    @classmethod
    def now(cls, proc: Path = Path("/proc")) -> Self:
        """Read the counters."""
        ticks = _processor_ticks(proc)
        known = len(ticks) > _STEAL
        return cls(
            at_s=time.monotonic(),
            waited_us=_waited_us(proc),
            stolen=ticks[_STEAL] if known else None,
            ticks=sum(ticks) if known else None,
        )

    @classmethod
    def unread(cls) -> Self:
        """Return a mark from which no pressure is told, for what no load can change."""
        return cls(at_s=time.monotonic(), waited_us=None, stolen=None, ticks=None)

    def until(self, later: PressureMark) -> Pressure:
        """Return the pressure between two moments."""
        span_s = max(later.at_s - self.at_s, 1e-3)
        waited = stolen = None
        if self.waited_us is not None and later.waited_us is not None:
            waited = min(1.0, (later.waited_us - self.waited_us) / 1e6 / span_s)
        if self.ticks is not None and later.ticks is not None:
            stolen = ((later.stolen or 0) - (self.stolen or 0)) / max(1, later.ticks - self.ticks)
        return Pressure(waited=waited, stolen=stolen, span_s=span_s)


def _waited_us(proc: Path) -> int | None:
    try:
        lines = (proc / "pressure/cpu").read_text().splitlines()
    except OSError:
        return None
    some = next((line for line in lines if line.startswith("some ")), "")
    total = some.rpartition("total=")[2]
    return int(total) if total.isdecimal() else None


def _processor_ticks(proc: Path) -> list[int]:
    try:
        first = (proc / "stat").read_text().partition("\n")[0].split()
    except OSError:
        return []
    return [int(field) for field in first[1:9] if field.isdecimal()]
