"""Cycles of orderings between units: who is left out for one, and which ordering it can do without."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pytest_nixos import Unit, observe

from .declared import has_run
from .remedies import unit_option

__all__ = ["left_out", "without_an_ordering"]

_OPTIONS = {"After": "after", "Before": "before"}


def left_out(members: Iterable[str], states: Mapping[str, observe.UnitState]) -> list[str]:
    """Return the units that do not run and never have: systemd may have dropped their jobs."""
    seen = {name: states[name] for name in members if name in states}
    return sorted(n for n, state in seen.items() if not (state.is_running or has_run(state)))


def without_an_ordering(members: Sequence[str], declared: Mapping[str, Unit]) -> str:
    """Return module text that takes one ordering of a cycle away, as far as the host declares one.

    :param members: each ordered after the next, and the last one after the first.
    """
    chain = " after ".join((*members, members[0]))
    found = next(_orderings(members, declared), None)
    if found is None:
        return f"# One of these orderings has to go: {chain}"
    unit, key, other = found
    kept = " ".join(json.dumps(word) for word in declared[unit].words("Unit", key) if word != other)
    return (
        f"# One of these orderings has to go: {chain}; for example\n"
        f"{unit_option(unit)}.{_OPTIONS[key]} = lib.mkForce [ {kept} ];".replace("[  ]", "[ ]")
    )


def _orderings(
    members: Sequence[str], declared: Mapping[str, Unit]
) -> Iterator[tuple[str, str, str]]:
    """Yield the orderings of a cycle that are written somewhere: unit, directive and what it names."""
    for later, earlier in zip(members, [*members[1:], members[0]], strict=True):
        for unit, key, other in ((later, "After", earlier), (earlier, "Before", later)):
            if unit in declared and other in declared[unit].words("Unit", key):
                yield unit, key, other
