"""How hard this machine was pressed meanwhile: what a slow answer of a guest has to be read against.

Sources: /proc/pressure/cpu ("some": share of time in which a process waited for a processor; Documentation/accounting/psi.rst)
and the field steal of /proc/stat (time that a hypervisor gave to others; proc(5)).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["Pressure", "PressureMark"]

_STEAL = 7
_WAITED = 0.5
_STOLEN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
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

    def to_json(self) -> dict[str, float | None]:
        """Return the shares for a report."""
        return {
            "waited": None if self.waited is None else round(self.waited, 3),
            "stolen": None if self.stolen is None else round(self.stolen, 3),
            "span_s": round(self.span_s, 1),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureMark:
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
