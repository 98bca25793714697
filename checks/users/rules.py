"""Rules of sudo and doas that give nothing to anybody: an account, a group or a program that is not
there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

__all__ = ["Rule", "Slip", "There", "doas_rules", "slips", "sudo_rules"]

Json = Any
# Below it two names are of two people, or of two programs.
_ALIKE = 0.75
# What these folders hold is the system's own. What lies elsewhere may be made by hand on the real host.
_OF_SYSTEM = (
    "/run/current-system/",
    "/run/wrappers/",
    "/etc/profiles/",
    "/nix/store/",
    "/usr/",
    "/bin/",
    "/sbin/",
)
_BY_HAND = ("/usr/local/",)
_BIN = "/run/current-system/sw/bin/"
_NAME = re.compile(r"[A-Za-z_][\w.-]*\$?")
_PLAIN = re.compile(r"[^*?\[\]\\!,=^$\s]+")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a rule names, and what.

    :param users: accounts, those as whom a command is run among them.
    :param programs: first words of its commands.
    """

    users: tuple[str, ...]
    groups: tuple[str, ...]
    programs: tuple[str, ...]


class There(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine has.

    :param files: those of the asked programs that are there.
    :param programs: names in the system's path.
    :param is_all: whether nobody else knows accounts (LDAP, a domain).
    """

    users: Collection[str]
    groups: Collection[str]
    files: Collection[str]
    programs: Collection[str]
    is_all: bool = True


class Slip(msgspec.Struct, frozen=True, kw_only=True):
    """A name that nothing has.

    :param kind: ``account``, ``group`` or ``program``.
    :param meant: what is called nearly so, ``""`` where nothing is.
    """

    kind: str
    name: str
    meant: str

    def __str__(self) -> str:
        hint = f" (meant: {self.meant}?)" if self.meant else ""
        return f"{self.name}: no such {self.kind}{hint}"


def sudo_rules(given: Json) -> Iterator[Rule]:
    """Read ``security.sudo.extraRules``. What sudoers(5) writes with a sign before it (``%``, ``+``,
    ``#``, ``!``) is no plain name, and left out.
    """
    for rule in _rules(given):
        commands = [
            c.get("command") if isinstance(c, dict) else c for c in rule.get("commands") or ()
        ]
        if commands:  # without one, NixOS writes no line
            run_as = str(rule.get("runAs") or "").partition(":")[0]
            yield Rule(
                users=_names([*(rule.get("users") or ()), *run_as.split(",")]),
                groups=_names(rule.get("groups") or ()),
                programs=_programs(commands),
            )


def doas_rules(given: Json) -> Iterator[Rule]:
    """Read ``security.doas.extraRules``."""
    for rule in _rules(given):
        yield Rule(
            users=_names([*(rule.get("users") or ()), rule.get("runAs")]),
            groups=_names(rule.get("groups") or ()),
            programs=_programs([rule.get("cmd")]),
        )


def slips(rules: Sequence[Rule], there: There) -> Sequence[Slip]:
    """Return the names of rules that nothing on the machine has."""
    found: dict[Slip, None] = {}
    for rule in rules:
        for kind, names, known in (
            ("account", rule.users, there.users),
            ("group", rule.groups, there.groups),
        ):
            for name in set(names) - set(known):
                meant = _nearest(name, known)
                if meant or there.is_all:
                    found[Slip(kind=kind, name=name, meant=meant)] = None
        for program in rule.programs:
            if program not in there.files:
                meant = _nearest(program.rpartition("/")[2], there.programs)
                slip = Slip(kind="program", name=program, meant=meant and _BIN + meant)
                found[slip] = None
    return sorted(found, key=str)


def _rules(given: Json) -> Iterator[Mapping[str, Json]]:
    yield from (rule for rule in given if isinstance(rule, dict)) if isinstance(given, list) else ()


def _names(words: Sequence[Json]) -> tuple[str, ...]:
    """Leave out numbers, ``ALL``, and what is written with a sign."""
    texts = (word.strip() for word in words if isinstance(word, str))
    return tuple(text for text in texts if text != "ALL" and _NAME.fullmatch(text))


def _programs(commands: Sequence[Json]) -> tuple[str, ...]:
    first = (str(c).split()[0] for c in commands if isinstance(c, str) and c.strip())
    return tuple(
        path
        for path in first
        if path.startswith(_OF_SYSTEM) and not path.startswith(_BY_HAND) and _PLAIN.fullmatch(path)
    )


def _nearest(name: str, known: Collection[str]) -> str:
    if name in known:
        return name
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=_ALIKE)), "")
