"""What an activation did to units, read from systemd before and after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pytest_nixos.observe.unit import parse_show

__all__ = ["UNIT_QUERY", "UnitChanges", "UnitState", "parse_units", "unwell_units"]

# Of every loaded unit: the same invocation with a later change of state is a service that was reloaded.
UNIT_QUERY = "systemctl show --no-pager --property=Id,Type,BusName,ActiveState,InvocationID,StateChangeTimestampMonotonic '*'"
_ACTIVE = frozenset({"active", "reloading", "refreshing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitState:
    """One loaded unit at one moment.

    :param invocation: id of its last start, ``""`` if it has not been started.
    :param bus_name: name on the system bus, by which it may be started on demand.
    :param changed_us: when its state last changed, in microseconds of the guest's monotonic clock.
    """

    name: str
    active: str
    invocation: str
    changed_us: int
    kind: str = ""
    bus_name: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it runs."""
        return self.active in _ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitChanges:
    """Units by what became of them between two moments, each in order of name.

    :param restarted: active both times, by another start.
    :param reloaded: services that are active by the same start and yet changed their state in between.
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
        ran = {name for name, unit in before.items() if unit.is_active}
        runs = {name for name, unit in after.items() if unit.is_active}
        stayed = {name for name in ran & runs if before[name].invocation == after[name].invocation}
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
    found: dict[str, UnitState] = {}
    for fields in parse_show(text):
        if name := fields.get("Id", ""):
            changed = fields.get("StateChangeTimestampMonotonic", "")
            found[name] = UnitState(
                name=name,
                active=fields.get("ActiveState", ""),
                invocation=fields.get("InvocationID", ""),
                changed_us=int(changed) if changed.isdecimal() else 0,
                kind=fields.get("Type", ""),
                bus_name=fields.get("BusName", ""),
            )
    return found


def failed_units(units: Mapping[str, UnitState]) -> frozenset[str]:
    """Return the names of the failed units."""
    return frozenset(name for name, unit in units.items() if unit.active == "failed")


def unwell_units(units: Mapping[str, UnitState]) -> frozenset[str]:
    """Return the failed units, and those that are between two tries of a start."""
    return frozenset(name for name, u in units.items() if u.active in ("failed", "activating"))


def _reloaded(before: UnitState, after: UnitState) -> bool:
    return before.name.endswith(".service") and before.changed_us != after.changed_us


def _sorted(names: set[str] | frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(names))
