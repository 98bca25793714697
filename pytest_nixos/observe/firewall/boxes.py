"""Arithmetic on boxes: dimension to the values that it may have; a dimension that is missing may
be anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from pytest_nixos.observe.firewall.model import universe
from pytest_nixos.observe.firewall.spans import Spans, cut, joined, meet

__all__ = ["Box", "by_sources", "count", "cut_box", "meet_boxes", "merged_boxes"]

Box = Mapping[str, Spans]


def merged_boxes(boxes: list[dict[str, Spans]]) -> list[dict[str, Spans]]:
    """Join boxes that together are one box; in a walk they were cut apart."""
    done: list[dict[str, Spans]] = []
    waiting = boxes
    while waiting:
        box = waiting.pop()
        for at, other in enumerate(done):
            if (both := _one_box(box, other)) is not None:
                del done[at]
                waiting.append(both)
                break
        else:
            done.append(box)
    return done


def _one_box(left: dict[str, Spans], right: dict[str, Spans]) -> dict[str, Spans] | None:
    different = [d for d in {*left, *right} if left.get(d) != right.get(d)]
    if len(different) > 1:
        return _widened(left, right, different)
    merged = dict(left)
    for dimension in different:
        both = joined((*_all_of(left, dimension), *_all_of(right, dimension)))
        if both == universe(dimension):
            merged.pop(dimension, None)
        else:
            merged[dimension] = both
    return merged


def _widened(
    left: dict[str, Spans], right: dict[str, Spans], different: Sequence[str]
) -> dict[str, Spans] | None:
    """Return the box that holds the other, if one does."""
    for wide, narrow in ((left, right), (right, left)):
        if all(not cut(_all_of(narrow, d), _all_of(wide, d)) for d in different):
            return wide
    return None


def _all_of(box: Box, dimension: str) -> Spans:
    return box.get(dimension) or universe(dimension)


def meet_boxes(left: Box, right: Box, start: Box) -> Box | None:
    """Return what both hold, ``None`` if nothing; `start` bounds what `left` leaves open."""
    found = dict(left)
    for dimension, values in right.items():
        mine = found.get(dimension) or start.get(dimension)
        both = values if mine is None else meet(mine, values)
        if not both:
            return None
        found[dimension] = both
    return found


def cut_box(box: Box, hole: Box) -> list[Box]:
    """Return `box` without `hole`, as disjoint boxes."""
    if meet_boxes(box, hole, {}) is None:
        return [box]
    pieces: list[Box] = []
    rest = dict(box)
    for dimension, values in hole.items():
        mine = rest.get(dimension) or universe(dimension)
        outside = cut(mine, values)
        if outside:
            pieces.append({**rest, dimension: outside})
        rest[dimension] = meet(mine, values)
    return pieces


def by_sources(pairs: Sequence[tuple[Spans, Spans]]) -> list[tuple[Spans, Spans]]:
    """Group ports by the sources that may use them, over all pairs of (ports, sources)."""
    if len(pairs) == 1:
        return [pairs[0]]
    edges = sorted({e for ports, _ in pairs for a, b in ports for e in (a, b + 1)})
    grouped: dict[Spans, list[tuple[int, int]]] = {}
    for first, after in itertools.pairwise(edges):
        here = [
            span
            for ports, sources in pairs
            if any(a <= first <= b for a, b in ports)
            for span in sources
        ]
        if here:
            grouped.setdefault(joined(here), []).append((first, after - 1))
    return [(joined(ports), sources) for sources, ports in grouped.items()]


def count(spans: Spans) -> int:
    """Return how many numbers there are."""
    return sum(last - first + 1 for first, last in spans)
