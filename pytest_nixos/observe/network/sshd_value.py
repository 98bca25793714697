"""Values of sshd's settings: whether two spellings mean the same, as ``sshd -T`` prints its own.

Source: sshd_config(5), OpenSSH's servconf.c (``dump_config``) and misc.c (``convtime``, ``scan_scaled``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["is_in_force", "sshd_text"]

Json = Any
_DURATIONS = frozenset({"clientaliveinterval", "logingracetime", "unusedconnectiontimeout"})
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(?:\d+[smhdw]?)+", re.IGNORECASE)
_PART = re.compile(r"(\d+)([smhdw]?)", re.IGNORECASE)
_SIZE = re.compile(r"(\d+)([kmg]?)", re.IGNORECASE)
_SCALES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# sshd prints the old name of the two that mean the same.
_SAME_WORDS = {"prohibit-password": "without-password"}
_LISTS = frozenset(
    {"ciphers", "macs", "kexalgorithms", "hostkeyalgorithms", "pubkeyacceptedalgorithms"}
    | {"pubkeyacceptedkeytypes", "hostbasedacceptedalgorithms", "casignaturealgorithms"}
)


def is_in_force(key: str, declared: Json, in_force: Json) -> bool:
    """Whether what is declared for a setting is what sshd has.

    :param key: of the setting, in lower case.
    :param declared: the option's value.
    :param in_force: what ``sshd -T`` prints, ``None`` for nothing.
    """
    if in_force is None:
        return False
    wanted, has = sshd_text(declared), sshd_text(in_force)
    if wanted == has:
        return True
    if key in _LISTS and wanted[:1] in ("+", "-", "^"):
        return _is_changed_so(wanted[0], wanted[1:].split(","), has.split(","))
    if key in _DURATIONS:
        return _seconds(wanted) is not None and _seconds(wanted) == _seconds(has)
    if key == "rekeylimit":
        return _rekey_limit(wanted) == _rekey_limit(has)
    if key == "maxstartups":
        return wanted.isdecimal() and bool(re.fullmatch(rf"{wanted}:\d+:{wanted}", has))
    return key == "compression" and {wanted, has} == {"delayed", "yes"}


def sshd_text(value: Json) -> str:
    """Return an option's value as sshd's text, in lower case; words of a list by commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    text = "none" if value is None else ",".join(str(value).split()).lower()
    return _SAME_WORDS.get(text, text)


def _is_changed_so(how: str, named: Sequence[str], has: Sequence[str]) -> bool:
    """Whether algorithms were added to sshd's own (``+``), taken away (``-``) or put first (``^``)."""
    if how == "-":
        return not any(fnmatchcase(one, pattern) for one in has for pattern in named)
    if how == "+":
        return set(named) <= set(has)
    return list(has[: len(named)]) == list(named)


def _seconds(text: str) -> int | None:
    if not _DURATION.fullmatch(text):
        return None
    return sum(int(number) * _UNITS_S[unit.lower()] for number, unit in _PART.findall(text))


def _rekey_limit(text: str) -> tuple[int, int]:
    """Return bytes and seconds, 0 for the default and for none."""
    size, _, time = text.partition(",")
    found = _SIZE.fullmatch(size)
    return int(found[1]) * _SCALES[found[2].lower()] if found else 0, _seconds(time) or 0
