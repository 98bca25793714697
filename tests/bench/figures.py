"""What a measurement gives: samples, rows of a table, goals and bars. Pure values, kept as JSON
between runs.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Several measurements of one thing.

    :param values: in `unit`, at least one.
    """

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Write the median, and the smallest and largest value where there are several."""
        text = f"{quantity(self.median)} {self.unit}"
        if len(self.values) < 2:
            return text
        return f"{text} ({quantity(min(self.values))} to {quantity(max(self.values))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What was to be reached, and what was.

    :param reason: why it falls short, shown only then.
    """

    wanted: str
    got: str
    reached: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of the picture, in its section's unit."""

    label: str
    value: float
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One measurement as it is shown.

    :param lead: what was done, in one paragraph.
    :param bars_unit: unit of the bars; empty where there are none.
    :param pace_ms: what a fixed piece of work took beside the measurement, see
        :mod:`tests.bench.pace`; 0 where nobody measured it.
    """

    name: str
    title: str
    lead: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    goals: tuple[Goal, ...] = ()
    bars: tuple[Bar, ...] = ()
    bars_title: str = ""
    bars_unit: str = ""
    machine: str = ""
    pace_ms: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read back what :meth:`to_json` gave, after a trip through JSON."""
        return cls(
            **{
                **data,
                "header": tuple(data["header"]),
                "rows": tuple(tuple(row) for row in data["rows"]),
                "goals": tuple(Goal(**goal) for goal in data["goals"]),
                "bars": tuple(Bar(**bar) for bar in data["bars"]),
            }
        )


def quantity(value: float) -> str:
    """Write a number with three significant digits or, from 100 on, without decimals.

    >>> [quantity(v) for v in (0.0123, 1.234, 12.34, 1234.5, 0)]
    ['0.0123', '1.23', '12.3', '1234', '0']
    """
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def at_most(what: str, got: float, limit: float, *, unit: str, reason: str) -> Goal:
    """Judge a figure that should be small."""
    return Goal(
        wanted=f"{what}: at most {quantity(limit)} {unit}",
        got=f"{quantity(got)} {unit}",
        reached=got <= limit,
        reason=reason,
    )


def at_least(what: str, got: float, limit: float, *, reason: str) -> Goal:
    """Judge a ratio that should be large."""
    return Goal(
        wanted=f"{what}: at least {quantity(limit)} times",
        got=f"{quantity(got)} times",
        reached=got >= limit,
        reason=reason,
    )


def merged(old: Sequence[Section], new: Sequence[Section], order: Sequence[str]) -> list[Section]:
    """Return the sections of `order`, new ones in place of old ones of their name."""
    known = {section.name: section for section in (*old, *new)}
    return [known[name] for name in order if name in known]
