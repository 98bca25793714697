"""The audit subsystem: its state, its rules as auditctl prints them, and whether they cover what
is wanted.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import msgspec

from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import lines

__all__ = ["AUDIT_FACTS", "AuditRule", "missing_rules", "parse_rule"]

_ARCHITECTURES = ("b64", "b32")
_NAMED_FIELDS = frozenset({"arch", "path", "dir", "perm", "key"})
_WATCH = {"-w": "path", "-p": "perm"}
#: The kernel prints an unset login user as a number or a word, whichever way it was written.
_UNSET = {"auid!=unset": "auid!=-1", "auid!=4294967295": "auid!=-1"}


class AuditRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, normalised.

    :param filters: field tests (``auid>=1000``), the architecture, path and key left out.
    :param path: watched path, without a closing slash.
    :param permissions: of a watch: letters of ``rwxa``, sorted.
    """

    syscalls: frozenset[str]
    filters: frozenset[str]
    architecture: str
    path: str
    permissions: str


def parse_rule(text: str) -> AuditRule | None:
    """Read one rule in either spelling (``-w`` or ``-a``); ``None`` for anything else."""
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    options = list(zip(words, [*words[1:], ""], strict=True))
    fields = [value.partition("=") for option, value in options if option in ("-F", "-C")]
    named = {key: right for key, sign, right in fields if sign and key in _NAMED_FIELDS}
    named |= {_WATCH[option]: value for option, value in options if option in _WATCH}
    tests = (
        value
        for option, value in options
        if option in ("-F", "-C")
        if value.partition("=")[0] not in _NAMED_FIELDS
    )
    calls = (call for option, value in options if option == "-S" for call in value.split(","))
    rule = AuditRule(
        syscalls=frozenset(calls) - {"all"},
        filters=frozenset(_UNSET.get(test, test) for test in tests),
        architecture=named.get("arch", ""),
        path=(named.get("path") or named.get("dir") or "").rstrip("/"),
        permissions="".join(sorted(named.get("perm", ""))),
    )
    return rule if rule.syscalls or rule.path or rule.filters else None


def missing_rules(
    loaded: Sequence[str],
    *,
    declared: Sequence[str] = (),
    syscalls: Sequence[str] = (),
    filters: Sequence[str] = (),
    watches: Sequence[str] = (),
) -> list[str]:
    """Say what of the wanted rules is not loaded.

    :param declared: rules as written; each has to be loaded in some spelling.
    :param syscalls: system calls to be audited on both architectures, by rules with all of
        `filters`.
    :param watches: paths to be watched for writing and attribute changes (or execution).
    """
    rules = [rule for text in loaded if (rule := parse_rule(text)) is not None]
    found = [text for text in declared if not _is_loaded(text, rules)]
    wanted = frozenset(_UNSET.get(f, f) for f in filters)
    for architecture in _ARCHITECTURES if syscalls else ():
        covered: set[str] = set()
        for rule in rules:
            if rule.architecture == architecture and wanted <= rule.filters:
                covered |= rule.syscalls
        found += [f"{architecture} {call}" for call in syscalls if call not in covered]
    watched = {rule.path for rule in rules if rule.path}
    found += [f"watch {path}" for path in watches if path.rstrip("/") not in watched]
    return found


def _is_loaded(text: str, rules: Sequence[AuditRule]) -> bool:
    rule = parse_rule(text)
    if rule is None:
        return True
    return any(
        rule.syscalls <= other.syscalls
        and rule.filters <= other.filters
        and rule.path == other.path
        and rule.architecture in ("", other.architecture)
        and set(rule.permissions) <= set(other.permissions)
        for other in rules
    )


def _audit_status(text: str) -> dict[str, str]:
    rows = (line.split(None, 1) for line in text.split("\n"))
    return {row[0].rstrip(":="): row[1].strip() for row in rows if len(row) == 2}


def _rules(text: str) -> list[str]:
    return [line for line in lines(text) if line != "No rules"]


AUDIT_FACTS: Mapping[str, Fact] = {
    "status": Fact(
        script="command -v auditctl >/dev/null || exit 3; auditctl -s",
        parse=_audit_status,
        about="state of the kernel's audit subsystem (`auditctl -s`)",
        lacking="the machine has no auditctl",
    ),
    "rules": Fact(
        script="command -v auditctl >/dev/null || exit 4; auditctl -l",
        parse=_rules,
        about="loaded audit rules (`auditctl -l`)",
    ),
}
