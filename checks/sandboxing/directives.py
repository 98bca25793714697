"""Sandboxing directives: what units declare, what systemd has made of it, and how the two
compare.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from pytest_nixos import HostConfig, Unit, observe, parse_boolean

__all__ = [
    "declared_sandboxes",
    "hardened_by_the_host",
    "is_hardened",
    "mismatches",
    "misspelt",
    "word_of",
]

_CAPABILITIES = "CapabilityBoundingSet"
_FILTER = "SystemCallFilter"

_HARDENED_FROM = 4


def declared_sandboxes(host: HostConfig) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the services that declare sandboxing: unit to directive to values; templates are
    left out.
    """
    found = {}
    for name, unit in sorted(host.units.items()):
        if not (unit.enabled and name.endswith(".service")) or "@." in name:
            continue
        if declared := _declared(unit):
            found[name] = declared
    return found


def hardened_by_the_host(
    host: HostConfig, declared: Mapping[str, Mapping[str, tuple[str, ...]]]
) -> list[str]:
    """Return the units that mean to be hardened and that the host says something about itself.

    What a module of nixpkgs hardens alone (nscd on every host, fail2ban) is its author's choice, and
    no line of the host to mend.
    """
    return [
        unit
        for unit, directives in declared.items()
        if is_hardened(directives) and (host.own_services is None or unit in host.own_services)
    ]


def is_hardened(declared: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether a unit means to be hardened: it protects the system and declares several
    directives more.
    """
    protects = word_of(declared.get("ProtectSystem", ("no",))) in ("strict", "full")
    return protects and len(declared) >= _HARDENED_FROM


def mismatches(declared: Mapping[str, tuple[str, ...]], shown: Mapping[str, str]) -> dict[str, str]:
    """Compare a unit's declaration with what ``systemctl show`` prints."""
    wrong = {}
    for directive, values in declared.items():
        observed = shown.get(directive, "")
        if not _agrees(directive, values, observed):
            wrong[directive] = f"declared {' '.join(values)!r}, in force {observed[:120]!r}"
    return wrong


def misspelt(host: HostConfig, report: observe.UnitFileReport) -> dict[str, dict[str, str]]:
    """Return the directives that systemd does not know and that look like one of
    :data:`~pytest_nixos.observe.SANDBOXING`, by unit.
    """
    found: dict[str, dict[str, str]] = {}
    for ignored in report.ignored:
        meant = difflib.get_close_matches(ignored.key, observe.SANDBOXING, n=1, cutoff=0.75)
        if ignored.key and meant and ignored.unit in host.units:
            found.setdefault(ignored.unit, {})[ignored.key] = f"not known to systemd ({meant[0]}?)"
    return found


def _declared(unit: Unit) -> dict[str, tuple[str, ...]]:
    values = {directive: unit.setting("Service", directive) for directive in observe.SANDBOXING}
    return {directive: given for directive, given in values.items() if given}


def _agrees(directive: str, values: tuple[str, ...], observed: str) -> bool:
    if directive == _FILTER:
        return bool(observed) == any(value.strip() for value in values)
    if directive == _CAPABILITIES:
        return _capabilities_agree(values, observed)
    return word_of(values) == word_of((observed,))


def _capabilities_agree(values: tuple[str, ...], observed: str) -> bool:
    words = [word.lower() for value in values for word in value.split()]
    if any(word.startswith("~") for word in words):
        denied = {word.removeprefix("~") for word in words}
        return not denied & set(observed.lower().split())
    return set(words) == set(observed.lower().split())


def word_of(values: tuple[str, ...]) -> str:
    """The last assignment counts; booleans have many spellings."""
    word = values[-1].strip().lower() if values else ""
    is_on = parse_boolean(word) if word else False
    return word if is_on is None else "yes" if is_on else "no"
