"""What became worse since the figures that are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tests.bench.figures import Section, quantity

__all__ = ["WORSE", "compared"]

#: What a figure may grow by before it is told.
WORSE = 0.10

_FIGURE = re.compile(r"(?P<value>\d+(?:\.\d+)?(?:e[-+]\d+)?) (?P<unit>s|ms|MiB|GiB)(?= |$)")
_TIMES = ("s", "ms")
# Two measurements of one idle machine's pace differ by less.
_SAME = 0.05
# What a fixed piece of work tells of another one ends somewhere.
_FAR = 2.0
# Other tools' figures tell this machine's speed, not ours.
_OTHERS = re.compile(r"over ssh|paramiko|ssh backend|test driver|bare run script")
# How many controls there are changes from release to release.
_COUNT = re.compile(r"\d{3,}")


def compared(kept: Sequence[Section], now: Sequence[Section]) -> Iterator[str]:
    """Yield a line for each figure of `now` that is worse than the kept one, and what to read them
    by.

    Times and memory count, medians of ours only. A time is held against the kept one as this machine
    would have taken for it, by the pace that was measured beside both; memory is what it is.
    """
    before = {section.name: section for section in kept}
    for section in now:
        old = before.get(section.name)
        if old is None:
            yield f"{section.name}: no figures are kept to compare with"
            continue
        known, figures = _figures(old), _figures(section)
        slower = section.pace_ms / old.pace_ms if section.pace_ms and old.pace_ms else 1.0
        worse = [
            line
            for (label, unit), value in figures.items()
            if (label, unit) in known
            for line in _worse(label, unit, value, known[label, unit], slower)
        ]
        worse = [f"{section.name}: {line}" for line in worse]
        both = len(figures.keys() & known.keys())
        yield from worse
        if told := _pace_told(old, section, slower):
            yield f"{section.name}: {told}"
        yield f"{section.name}: {len(worse)} of {both} figures more than {WORSE:.0%} worse; kept: {old.machine or 'no machine named'}"
        if missing := len(known.keys() - figures.keys()):
            yield f"{section.name}: {missing} kept figures were not measured now"


def _worse(label: str, unit: str, value: float, was: float, slower: float) -> Iterator[str]:
    scaled = slower if unit in _TIMES else 1.0
    if value > was * scaled * (1 + WORSE):
        here = f" here as {quantity(was * scaled)}" if abs(scaled - 1) > _SAME else ""
        yield (
            f"{label}: {quantity(value)} {unit}, was {quantity(was)}{here} {unit}"
            f" ({value / (was * scaled) - 1:+.0%})"
        )


def _pace_told(old: Section, now: Section, slower: float) -> str:
    if not (old.pace_ms and now.pace_ms):
        return "the pace of one of the machines is not known: times are compared as they are"
    if not 1 / _FAR < slower < _FAR:
        return f"this machine takes {quantity(slower)} times as long for the same work: too far apart, measure both on one"
    if abs(slower - 1) > _SAME:
        return f"this machine takes {quantity(slower)} times as long for the same work: times are scaled by that"
    return ""


def _figures(section: Section) -> Mapping[tuple[str, str], float]:
    """Return the medians by row, column and unit."""
    found = {}
    for label, *cells in section.rows:
        for column, cell in zip(section.header[1:], cells, strict=False):
            figure = _FIGURE.match(cell)
            if figure is None or _OTHERS.search(f"{label} {column}"):
                continue
            name = _COUNT.sub("N", f"{label}, {column}")
            found[name, figure["unit"]] = float(figure["value"])
    return found
