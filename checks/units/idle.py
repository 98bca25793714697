"""Why a declared unit was never started, and what mends it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pytest_nixos import Unit, observe

from .declared import pulled_in_by_nothing
from .remedies import unit_option

__all__ = [
    "OF_SYSTEMD",
    "Misspelt",
    "misspelt_wanting",
    "requires_missing",
    "requiring_remedy",
    "start_them",
    "why_idle",
]

_TARGET = ".target"
_OTHER_KINDS = tuple(
    f".{kind}"
    for kind in ("service", "socket", "device", "mount", "automount", "swap", "path", "timer")
)
#: Every host has them, whether or not one of its own units names them (systemd.special(7)).
OF_SYSTEMD = frozenset(
    f"{name}{_TARGET}"
    for name in (
        "basic",
        "graphical",
        "local-fs",
        "multi-user",
        "network",
        "network-online",
        "paths",
        "remote-fs",
        "shutdown",
        "sleep",
        "sockets",
        "suspend",
        "sysinit",
        "timers",
    )
)
_NAMING = {
    "Requires": "requires",
    "BindsTo": "bindsTo",
    "Requisite": "requisite",
    "Wants": "wants",
    "After": "after",
    "Before": "before",
}
_NOT_FOUND = re.compile(r"Unit (?P<name>\S+) not found")


class Misspelt(NamedTuple):
    """One name that wants a unit, and that the host does not have.

    :param meant: the unit that it nearly names.
    """

    written: str
    meant: str


def why_idle(
    name: str,
    declared: Mapping[str, Unit],
    states: Mapping[str, observe.UnitState],
    said: Iterable[str],
) -> str:
    """Return what kept a wanted unit from being started, ``""`` where nothing tells.

    :param said: what systemd says of the unit file.
    """
    state, unit = states[name], declared[name]
    checked = state.get("AssertTimestampMonotonic") not in ("", "0")
    if checked and state.get("AssertResult") == "no":
        asserted = [
            f"{key}={value}"
            for key, values in unit.settings.get("Unit", {}).items()
            if key.startswith("Assert")
            for value in values
        ]
        return f"what its unit asserts does not hold: {', '.join(asserted)}"
    if missing := requires_missing(declared, said):
        return missing
    rivals = sorted(
        other
        for other, rival in declared.items()
        if other in states
        and states[other].is_running
        and (other in _conflicts(unit) or name in _conflicts(rival))
    )
    return f"it conflicts with {', '.join(rivals)}, which runs" if rivals else ""


def requires_missing(declared: Mapping[str, Unit], said: Iterable[str]) -> str:
    """Return which unit a unit requires that is not there, ``""`` for none.

    :param said: what systemd says of the unit file.
    """
    missing, meant = _required(declared, said)
    if not missing:
        return ""
    return f"it requires {missing}, which is not there{f' (meant: {meant}?)' if meant else ''}"


def requiring_remedy(name: str, declared: Mapping[str, Unit], said: Iterable[str]) -> str:
    """Return module text for a unit that requires one which is not there and that is spelt nearly
    like another; ``""`` where that is not why it is idle.
    """
    missing, meant = _required(declared, said)
    if not meant:
        return ""
    lines = []
    for key, option in _NAMING.items():
        names = declared[name].words("Unit", key)
        if missing in names:
            right = " ".join(f'"{meant if word == missing else word}"' for word in names)
            lines.append(f"{unit_option(name)}.{option} = lib.mkForce [ {right} ];")
    return "\n".join(lines)


def misspelt_wanting(
    declared: Mapping[str, Unit], states: Mapping[str, observe.UnitState]
) -> Mapping[str, Sequence[Misspelt]]:
    """Return the units that nothing starts, since the target that wants them is spelt otherwise
    than one of the host.

    A unit may well be wanted by one that is not on every host, so only targets count, and only what
    is nearly the name of another.
    """
    loads = {name: state.get("LoadState") for name, state in states.items()}
    own = {n for n, load in loads.items() if load == "loaded" and n.endswith(_TARGET)}
    targets = sorted(own | OF_SYSTEMD)
    found = {}
    for name, unit in declared.items():
        if name not in states or not pulled_in_by_nothing(states[name]):
            continue
        # What is no name of a unit, as with another suffix, cannot be asked for.
        if any(loads.get(wanting, "not-found") != "not-found" for wanting in unit.wanted_by):
            continue
        slips = [Misspelt(wanting, _meant_target(wanting, targets)) for wanting in unit.wanted_by]
        if slips and all(slip.meant for slip in slips):
            found[name] = slips
    return found


def start_them(
    misspelt: Mapping[str, Sequence[Misspelt]],
    others: Iterable[str],
    known: Mapping[str, str] | None = None,
) -> str:
    """Return the module text that has units started whose wanting unit is misspelt.

    :param others: units that are idle for another reason.
    :param known: those of them whose remedy is known, with it.
    """
    known = known or {}
    lines = [
        f"{unit_option(name)}.wantedBy = lib.mkForce [ {_quoted(slips)} ];"
        for name, slips in misspelt.items()
    ]
    lines += [
        known.get(name) or f"# {name}: give it what it needs: systemctl status {name}"
        for name in others
    ]
    return "\n".join(lines)


def _meant_target(name: str, targets: Sequence[str]) -> str:
    if name.endswith(_TARGET) or not name.endswith(_OTHER_KINDS):
        return _nearest(name, targets)
    same = f"{name.rpartition('.')[0]}{_TARGET}"
    return same if same in targets else ""


def _quoted(slips: Iterable[Misspelt]) -> str:
    return " ".join(f'"{slip.meant}"' for slip in slips)


def _required(declared: Iterable[str], said: Iterable[str]) -> tuple[str, str]:
    """Return the required unit that is not there and the one that is meant, ``""`` for none."""
    missing = next((m["name"] for line in said if (m := _NOT_FOUND.search(line))), "")
    return missing, _nearest(missing, (*declared, *OF_SYSTEMD)) if missing else ""


def _nearest(written: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(written, list(known), n=1, cutoff=0.85)), "")


def _conflicts(unit: Unit) -> frozenset[str]:
    return frozenset(unit.words("Unit", "Conflicts"))
