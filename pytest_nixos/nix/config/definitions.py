"""Who sets an option, as the module system tells it: what ``expressions/where.nix`` returns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import msgspec

__all__ = ["DEFAULT_PRIORITY", "Definition", "Definitions", "Member", "Spot", "priority_name"]

Json = Any

#: Priority of an option's own default (``mkOptionDefault`` in nixpkgs' lib/modules.nix).
DEFAULT_PRIORITY = 1500
_PLAIN = 100
_NAMES = {
    10: "mkVMOverride",
    50: "mkForce",
    60: "mkImageMediaOverride",
    1000: "mkDefault",
    DEFAULT_PRIORITY: "mkOptionDefault",
}
# "/nix/store/...-source/flake.nix#nixosModules.web", and "FILE, via option flake.nixosModules".
_TAIL = re.compile(r"(#[\w.\"'/-]*)?(, via option .*)?$", re.DOTALL)


class Spot(msgspec.Struct, frozen=True, kw_only=True):
    """A file as Nix names it, and the position in it that Nix knows."""

    file: str
    line: int | None = None
    column: int | None = None

    @classmethod
    def parse(cls, data: Mapping[str, Json] | None, file: str = "") -> Self:
        """Read a position; where Nix knows none, it is somewhere in `file`."""
        if not data or "line" not in data:
            return cls(file=_TAIL.sub("", file))
        return cls(file=data["file"], line=data["line"], column=data["column"])


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One definition that takes part in an option's value.

    :param priority: of this definition, where it says one inside the option.
    """

    spot: Spot
    priority: int | None = None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One member of an option's value (a service of ``systemd.services``), as one definition
    sets it.
    """

    name: str
    spot: Spot


class Definitions(msgspec.Struct, frozen=True, kw_only=True):
    """What decides one option.

    :param rest: attribute names behind the option itself, inside its value.
    :param priority: of all that won.
    :param declared: where the option is declared.
    :param found: what sets it; where it is not set, what sets its default.
    :param members: what sets each member of its value, where that was asked for.
    :param enabled: of a set of options: its members that somebody enables.
    """

    rest: tuple[str, ...] = ()
    priority: int | None = None
    declared: tuple[Spot, ...] = ()
    found: tuple[Definition, ...] = ()
    members: tuple[Member, ...] = ()
    enabled: tuple[Member, ...] = ()

    @classmethod
    def parse(cls, data: Mapping[str, Json]) -> Self:
        """Read one answer."""
        if "enabled" in data:
            return cls(enabled=tuple(_member(each, each["file"]) for each in data["enabled"]))
        declared = [Spot.parse(None, file) for file in data["declared"]]
        exact = [Spot.parse(each, declared[0].file) for each in data["declaredAt"] if each]
        definitions: Sequence[Mapping[str, Json]] = data["definitions"]
        return cls(
            rest=tuple(data["rest"]),
            priority=data["priority"],
            declared=tuple(exact or declared),
            found=tuple(
                Definition(spot=Spot.parse(d["position"], d["file"]), priority=d["priority"])
                for d in definitions
            ),
            members=tuple(_member(each, d["file"]) for d in definitions for each in d["members"]),
        )

    @property
    def deciding(self) -> tuple[Definition, ...]:
        """What sets it with the priority that wins, its default left out."""
        own = [d for d in self.found if not self._is_default(d)]
        if not own:
            return ()
        first = min(self._priority(d) for d in own)
        return tuple(d for d in own if self._priority(d) == first)

    def priority_of(self, definition: Definition) -> str:
        """Return how a definition says its priority, ``""`` for a plain one."""
        return priority_name(self._priority(definition))

    def _priority(self, definition: Definition) -> int:
        if definition.priority is not None:
            return definition.priority
        return _PLAIN if self.priority is None else self.priority

    def _is_default(self, definition: Definition) -> bool:
        """Whether it is the option's own default and no module's: it stands where the option is
        declared.
        """
        files = {spot.file for spot in self.declared}
        return self.priority == DEFAULT_PRIORITY and definition.spot.file in files


def priority_name(priority: int) -> str:
    """Return how a priority is written in a module, ``""`` for a plain definition."""
    if priority == _PLAIN:
        return ""
    return _NAMES.get(priority, f"mkOverride {priority}")


def _member(data: Mapping[str, Json], file: str) -> Member:
    return Member(name=data["name"], spot=Spot.parse(data, file))
