"""What an activation did to units, read from systemd before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pytest_nixos.observe.systemd.unit import UnitState, parse_show
from pytest_nixos.observe.systemd.unit_event import UnitEventKind, UnitHistory

__all__ = [
    "STATE_QUERY",
    "UNIT_QUERY",
    "UnitChanges",
    "flapping_units",
    "parse_states",
    "parse_units",
    "unwell_units",
]

# Of every loaded unit: the same invocation with a later change of state is a service that was
# reloaded.
_CHANGED = "StateChangeTimestampMonotonic"
UNIT_QUERY = (
    f"systemctl show --no-pager --property=Id,Type,BusName,ActiveState,InvocationID,{_CHANGED} '*'"
)
#: The states of the same units in one answer of systemd's; :data:`UNIT_QUERY` asks for each unit, which
#: takes an emulated guest seconds.
STATE_QUERY = "systemctl list-units --plain --no-legend --no-pager --full"

# A service that ran longer than this since its last restart, and longer than it did twice before,
# has got over what ailed it.
_RECOVERED_S = 15.0
_LONGEST_TRY_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitChanges:
    """Units by what became of them between two moments, each in order of name.

    :param restarted: active both times, by another start.
    :param reloaded: services that are active by the same start and yet changed their state in
        between; these and `restarted` are empty where only states were looked at.
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


def parse_states(text: str) -> dict[str, UnitState]:
    """Read what :data:`STATE_QUERY` prints: a line a unit, which some releases begin with a mark where
    the unit is not well.
    """
    found = {}
    for line in text.splitlines():
        words = line.split()
        if words and "." not in words[0]:
            del words[0]
        if len(words) >= 4:
            properties = {"Id": words[0], "ActiveState": words[2]}
            found[words[0]] = UnitState(name=words[0], properties=properties)
    return found


def failed_units(units: Mapping[str, UnitState]) -> frozenset[str]:
    """Return the names of the failed units."""
    return frozenset(name for name, unit in units.items() if unit.is_failed)


def unwell_units(units: Mapping[str, UnitState]) -> frozenset[str]:
    """Return the failed units, and those that are between two tries of a start."""
    unwell = ("failed", "activating")
    return frozenset(name for name, unit in units.items() if unit.get("ActiveState") in unwell)


def flapping_units(history: UnitHistory, at_s: float) -> frozenset[str]:
    """Return the units that were started again and again at a moment: between two tries such a
    service looks as if it ran.

    Taken from the journal, since a switch resets systemd's own count of restarts.

    :param at_s: the moment, on the clock of :attr:`UnitEvent.at_s`.
    """
    restarts: dict[str, list[float]] = {}
    for event in history.events:
        if event.kind is UnitEventKind.RESTARTED and event.at_s <= at_s:
            restarts.setdefault(event.unit, []).append(event.at_s)
    return frozenset(
        unit for unit, times in restarts.items() if at_s - max(times) < _longest_good_spell_s(times)
    )


def _longest_good_spell_s(restarts: list[float]) -> float:
    """Return how long after its last restart a service may still be in one of its tries."""
    last = sorted(restarts)[-2:]
    return max(_RECOVERED_S, 2 * min(last[-1] - last[0], _LONGEST_TRY_S))


def _reloaded(before: UnitState, after: UnitState) -> bool:
    return before.name.endswith(".service") and not _same(before, after, _CHANGED)


def _same(before: UnitState, after: UnitState, name: str) -> bool:
    return before.get(name) == after.get(name)


def _sorted(names: set[str] | frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
