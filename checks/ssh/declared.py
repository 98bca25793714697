"""Whom the host declares that sshd is not to let in."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Protocol

__all__ = ["Account", "declared_refusal", "misspelt_names"]

# Below it two names are of two people.
_ALIKE = 0.8


class Account(Protocol):
    """What is asked of a declared user."""

    @property
    def name(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def extra_groups(self) -> Sequence[str]: ...


def declared_refusal(user: Account, settings: Mapping[str, Any]) -> str:
    """Return the setting by which sshd refuses a user, ``""`` where none does.

    A pattern that names a place too (``alice@192.0.2.*``) lets in, and refuses, from there only: it
    decides nothing here.

    :param settings: ``services.openssh.settings``.
    """
    groups = {user.group, *user.extra_groups}
    if user.name == "root" and settings.get("PermitRootLogin") in ("no", False):
        return "PermitRootLogin"
    if _named(settings, "DenyUsers", {user.name}):
        return "DenyUsers"
    if _misses(settings, "AllowUsers", {user.name}):
        return "AllowUsers"
    if _named(settings, "DenyGroups", groups):
        return "DenyGroups"
    if _misses(settings, "AllowGroups", groups):
        return "AllowGroups"
    return ""


def misspelt_names(
    settings: Mapping[str, Any], users: Collection[str], groups: Collection[str]
) -> Mapping[tuple[str, str], str]:
    """Return the names in ``AllowUsers`` and its kin that nobody has and that are another one
    misspelt: setting and name to the name that is meant.

    A name that the host does not declare may be of somebody from elsewhere (LDAP): only one that is
    nearly a declared name, which the setting does not name itself, is a slip of the pen.

    :param users: declared people.
    :param groups: declared groups.
    """
    found = {}
    for key, known in {
        "AllowUsers": users,
        "DenyUsers": users,
        "AllowGroups": groups,
        "DenyGroups": groups,
    }.items():
        names = [pattern.partition("@")[0] for pattern in _patterns(settings, key)]
        others = sorted(set(known) - set(names))
        for name in names:
            if name not in known and not re.search(r"[*?!]", name):
                for meant in get_close_matches(name, others, n=1, cutoff=_ALIKE):
                    found[key, name] = meant
    return found


def _misses(settings: Mapping[str, Any], key: str, names: set[str]) -> bool:
    patterns = _patterns(settings, key)
    return bool(patterns) and not any(
        fnmatch.fnmatchcase(name, pattern.partition("@")[0])
        for name in names
        for pattern in patterns
    )


def _named(settings: Mapping[str, Any], key: str, names: set[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(name, pattern)
        for name in names
        for pattern in _patterns(settings, key)
        if "@" not in pattern
    )


def _patterns(settings: Mapping[str, Any], key: str) -> list[str]:
    value = settings.get(key) or ()
    return value.split() if isinstance(value, str) else [str(word) for word in value]
