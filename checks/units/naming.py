"""Names of other units that a unit writes, and that the host does not have."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from pytest_nixos import Unit

from .remedies import LISTS, unit_option

__all__ = ["UnknownName", "asked_names", "remedy_of", "slip_of", "unknown_names"]

# What they are for never happens without the unit.
_STARTED_LATER = ("OnFailure", "OnSuccess")
# A unit may well be beside one that is not on every host: only a slip of the pen counts.
_OF_NEIGHBOURS = ("Wants", "Upholds", "After", "Before", "PartOf", "Conflicts")
_MOST_CHANGED = 2
_LEAST = 5
_SHORT = 7
_PART = re.compile(r"[-_.@]")
_SPECIFIER = re.compile(r"%.")
# Display managers of nixpkgs name it, whether or not the host has Plymouth.
_MAY_LACK = frozenset({"plymouth-quit.service"})


class UnknownName(NamedTuple):
    """A name that a unit writes.

    :param key: the directive.
    :param meant: the unit of the host that it nearly names, ``""`` for none.
    """

    unit: str
    key: str
    written: str
    meant: str

    def __str__(self) -> str:
        meant = f" (meant: {self.meant}?)" if self.meant else ""
        return f"{self.unit}: {self.key}={self.written}, which is not there{meant}"


def asked_names(declared: Mapping[str, Unit]) -> frozenset[str]:
    """Return the names of units that declared units write, as systemd is asked for them: of a
    template an instance.
    """
    return frozenset(
        _SPECIFIER.sub("test", name)
        for unit in declared.values()
        for key in (*_STARTED_LATER, *_OF_NEIGHBOURS)
        for name in unit.words("Unit", key)
    )


def unknown_names(
    declared: Mapping[str, Unit], missing: Collection[str], known: Collection[str]
) -> Iterator[UnknownName]:
    """Yield the names that no unit has and that one was meant to have.

    :param missing: those of :func:`asked_names` that systemd does not know.
    :param known: units that are there, templates among them.
    """
    for name, unit in declared.items():
        for key in (*_STARTED_LATER, *_OF_NEIGHBOURS):
            written = unit.words("Unit", key)
            for other in written:
                if _SPECIFIER.sub("test", other) not in missing or other in _MAY_LACK:
                    continue
                meant = _instance_of(other, [k for k in known if k not in written])
                if meant or key in _STARTED_LATER:
                    yield UnknownName(name, key, other, meant)


def remedy_of(unknown: UnknownName, unit: Unit) -> str:
    """Return module text without the slip, or what to do."""
    option = f"{unit_option(unknown.unit)}.{LISTS[unknown.key]}"
    if not unknown.meant:
        return f"# {unknown.unit}: declare {unknown.written}, {unit_option(unknown.written)}, or take it out of\n# {option}."
    right = (unknown.meant if n == unknown.written else n for n in unit.words("Unit", unknown.key))
    names = " ".join(f'"{name}"' for name in dict.fromkeys(right))
    return f"{option} = lib.mkForce [ {names} ];"


def _instance_of(written: str, known: Collection[str]) -> str:
    """Return what was meant; of an instance the same one of another template."""
    stem, at, rest = written.partition("@")
    if not at:
        return slip_of(written, known)
    template = slip_of(f"{stem}@.{rest.rpartition('.')[2]}", known)
    return f"{template.partition('@')[0]}@{rest}" if template else ""


def slip_of(written: str, known: Collection[str]) -> str:
    """Return the name of which a written one is a slip of the pen, ``""`` for none: a letter or two
    differ, no digit does, or the suffix alone.
    """
    stem, _, suffix = written.rpartition(".")
    if suffix == "service" and f"{stem}.target" in known:
        return f"{stem}.target"
    close = difflib.get_close_matches(written, known, n=3, cutoff=0.8)
    return next((name for name in close if _is_slip(written, name)), "")


def _is_slip(written: str, meant: str) -> bool:
    stem, _, suffix = written.rpartition(".")
    changed = [
        (written[i1:i2], meant[j1:j2])
        for kind, i1, i2, j1, j2 in difflib.SequenceMatcher(None, written, meant).get_opcodes()
        if kind != "equal"
    ]
    parts = [_PART.split(name) for name in (written, meant)]
    # Of names that differ in a short part, as db-eu and db-us, each may be meant.
    by_part = len(parts[0]) != len(parts[1]) or all(
        one == other or min(len(one), len(other)) >= _LEAST - 1
        for one, other in zip(*parts, strict=True)
    )
    return (
        by_part
        and len(stem) >= _LEAST
        and meant.endswith(f".{suffix}")
        and (
            sum(max(len(old), len(new)) for old, new in changed)
            <= (_MOST_CHANGED if len(stem) > _SHORT else 1)
            or sorted(written) == sorted(meant)
        )
        and not re.search(r"[\d@:]", "".join(old + new for old, new in changed))
    )
