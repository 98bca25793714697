"""What an activation did to units, read from systemd before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pytest_nixos.observe.unit import UnitState, parse_show

__all__ = ["UNIT_QUERY", "UnitChanges", "parse_units", "unwell_units"]

# Of every loaded unit: the same invocation with a later change of state is a service that was
# reloaded.
_CHANGED = "StateChangeTimestampMonotonic"
UNIT_QUERY = (
    f"systemctl show --no-pager --property=Id,Type,BusName,ActiveState,InvocationID,{_CHANGED} '*'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitChanges:
    """Units by what became of them between two moments, each in order of name.

    :param restarted: active both times, by another start.
    :param reloaded: services that are active by the same start and yet changed their state in
        between.
    :param failed: failed now and not before.
    :param recovered: failed before and not now.
    """

    stopped: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    reloaded: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    recovered: tuple[str, ...] = ()

    @classmethod
    def between(cls, before: Mapping[str, UnitState], after: Mapping[str, UnitState]) -> Self:
        """Compare two moments of the same boot."""
        ran = {name for name, unit in before.items() if unit.is_running}
        runs = {name for name, unit in after.items() if unit.is_running}
        stayed = {name for name in ran & runs if _same(before[name], after[name], "InvocationID")}
        return cls(
            stopped=_sorted(ran - runs),
            started=_sorted(runs - ran),
            restarted=_sorted((ran & runs) - stayed),
            reloaded=_sorted({name for name in stayed if _reloaded(before[name], after[name])}),
            failed=_sorted(failed_units(after) - failed_units(before)),
            recovered=_sorted(failed_units(before) - failed_units(after)),
        )


def parse_units(text: str) -> dict[str, UnitState]:
    """Read what :data:`UNIT_QUERY` prints: blocks of ``key=value``, parted by empty lines."""
    blocks = parse_show(text)
    return {b["Id"]: UnitState(name=b["Id"], properties=b) for b in blocks if b.get("Id")}


def failed_units(units: Mapping[str, UnitState]) -> frozenset[str]:
    """Return the names of the failed units."""
    return frozenset(name for name, unit in units.items() if unit.is_failed)


def unwell_units(units: Mapping[str, UnitState]) -> frozenset[str]:
    """Return the failed units, and those that are between two tries of a start."""
    unwell = ("failed", "activating")
    return frozenset(name for name, unit in units.items() if unit.get("ActiveState") in unwell)


def _reloaded(before: UnitState, after: UnitState) -> bool:
    return before.name.endswith(".service") and not _same(before, after, _CHANGED)


def _same(before: UnitState, after: UnitState, name: str) -> bool:
    return before.get(name) == after.get(name)


def _sorted(names: set[str] | frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
