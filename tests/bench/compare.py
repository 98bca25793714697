"""What became worse since the figures that are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tests.bench.figures import Section, quantity

__all__ = ["WORSE", "compared"]

#: What a figure may grow by before it is told.
WORSE = 0.10

_FIGURE = re.compile(r"(?P<value>\d+(?:\.\d+)?(?:e[-+]\d+)?) (?P<unit>s|ms|MiB|GiB)(?= |$)")
# Other tools' figures tell this machine's speed, not ours.
_OTHERS = re.compile(r"over ssh|paramiko|ssh backend|test driver|bare run script")
# How many controls there are changes from release to release.
_COUNT = re.compile(r"\d{3,}")


def compared(kept: Sequence[Section], now: Sequence[Section]) -> Iterator[str]:
    """Yield a line for each figure of `now` that is worse than the kept one, and what to read them
    by.

    Times and memory count, medians of ours only.
    """
    before = {section.name: section for section in kept}
    for section in now:
        old = before.get(section.name)
        if old is None:
            yield f"{section.name}: no figures are kept to compare with"
            continue
        known, figures = _figures(old), _figures(section)
        worse = [
            f"{section.name}: {label}: {quantity(value)} {unit}, was {quantity(known[label, unit])} {unit} ({value / known[label, unit] - 1:+.0%})"
            for (label, unit), value in figures.items()
            if value > known.get((label, unit), value) * (1 + WORSE)
        ]
        both = len(figures.keys() & known.keys())
        yield from worse
        yield f"{section.name}: {len(worse)} of {both} figures more than {WORSE:.0%} worse; kept: {old.machine or 'no machine named'}"
        if missing := len(known.keys() - figures.keys()):
            yield f"{section.name}: {missing} kept figures were not measured now"


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
