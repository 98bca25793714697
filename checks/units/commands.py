"""Commands of units that are written as for a shell: systemd starts a program, and hands it every word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from pytest_nixos import Unit

from .remedies import unit_option

__all__ = ["UnreadCommand", "unread_commands"]

_COMMANDS = (
    *("ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload"),
    *("ExecStop", "ExecStopPost"),
)
# Words as systemd.service(5) parts them: what stands in quotes belongs to one.
_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')+""", re.DOTALL)
_OPERATOR = re.compile(r"\|\|?|&&|&|\d?>>?|<|\d?>>?(?:&\d|/\S*)|</\S*|\d?>&\d")
_SUBSTITUTION = re.compile(r"\$\((?!\()|`")
_SHELL = re.compile(r"(?:^|/)(?:ba|da|z|fi|k|a)?sh$|(?:^|/)busybox$|(?:^|/)runtimeShell$")
# Programs of which such a word may be an operand, or that hand it to a shell.
_TAKE_ANY = re.compile(
    r"(?:^|/)(?:expr|test|\[|dc|bc|ssh|tmux|screen|parallel|watch|awk|gawk|su|runuser|script|flock)$"
)
_WITHOUT_GLOBS = re.compile(
    r"(?:^|/)(?:rm|cp|mv|ls|cat|chmod|chown|chgrp|touch|ln|du|mkdir|shred)$"
)
_GLOB = re.compile(r"[^\s\"']*[*?][^\s\"']*")
_VARIABLE = re.compile(r"(?<!\$)\$(?:\{(?P<braced>[A-Za-z_]\w*)\}|(?P<plain>[A-Za-z_]\w*))")
_ASSIGNED = re.compile(r"(?:^|[\s\"'])([A-Za-z_]\w*)=")
# systemd.exec(5), "Environment variables in spawned processes".
_SET_BY_SYSTEMD = re.compile(
    r"PATH|USER|LOGNAME|LANG|LC_\w+|INVOCATION_ID|XDG_\w+|MAINPID|MANAGERPID|TERM|LISTEN_\w+|NOTIFY_SOCKET|WATCHDOG_\w+"
    r"|SYSTEMD_\w+|JOURNAL_STREAM|SERVICE_RESULT|EXIT_CODE|EXIT_STATUS|MONITOR_\w+|PIDFILE|CREDENTIALS_DIRECTORY"
    r"|REMOTE_\w+|TRIGGER_\w+|MEMORY_PRESSURE_\w+|FDSTORE|\w*_DIRECTORY|TZDIR|LOCALE_ARCHIVE|NIX_\w+|DEBUG_INVOCATION"
)
_OF_LOGIN = frozenset({"HOME", "SHELL"})
# What may set variables that the unit file does not name.
_MORE_VARIABLES = ("EnvironmentFile", "PassEnvironment", "PAMName")

# Options of nixpkgs that write a script and have it started (nixos/lib/systemd-unit-options.nix).
_SCRIPTS = {
    "ExecStartPre": "preStart",
    "ExecStart": "script",
    "ExecStartPost": "postStart",
    "ExecReload": "reload",
    "ExecStop": "preStop",
    "ExecStopPost": "postStop",
}


class UnreadCommand(NamedTuple):
    """A command that does something else than it looks like.

    :param why: a clause about it.
    :param remedy: module text, or what to do.
    """

    why: str
    remedy: str


def unread_commands(unit: Unit) -> Iterator[UnreadCommand]:
    """Yield the commands of a service whose words mean nothing without a shell, and those that name
    variables which nothing sets.
    """
    for key in _COMMANDS:
        for text in unit.setting("Service", key):
            marks = re.match(r"[@\-:+!|]*", text)
            prefix = marks[0] if marks is not None else ""
            words = _WORD.findall(text[len(prefix) :])
            if not words or "|" in prefix:
                continue
            if found := _of_shell(words):
                yield _as_script(unit, key, text, found)
            elif ":" not in prefix and (unset := _unset(unit, words)):
                yield _with_variables(unit, key, words, unset)


def _of_shell(words: list[str]) -> str:
    """Return the word that only a shell would understand, ``""`` for none."""
    program, *arguments = words
    if _TAKE_ANY.search(program) or any(_SHELL.search(word) for word in words):
        return ""
    for word in arguments:
        if _OPERATOR.fullmatch(word) or (_SUBSTITUTION.search(word) and word[0] != "'"):
            return word
        if _GLOB.fullmatch(word) and "/" in word and _WITHOUT_GLOBS.search(program):
            return word
    return ""


def _as_script(unit: Unit, key: str, text: str, word: str) -> UnreadCommand:
    program = text.split(maxsplit=1)[0].rpartition("/")[2]
    told = f"{key} hands {word} to {program} as it stands, since no shell reads it"
    config = f"{unit_option(unit.name)}.serviceConfig.{key}"
    if key not in _SCRIPTS:
        return UnreadCommand(
            told,
            f"# Write what {config} does into a script of pkgs.writeShellScript, and have it start that.",
        )
    return UnreadCommand(
        told,
        f"# Move the text of {config} to\n#   {unit_option(unit.name)}.{_SCRIPTS[key]}, which a shell reads.",
    )


def _unset(unit: Unit, words: list[str]) -> list[str]:
    """Return the variables of a command that nothing sets."""
    if any(unit.setting("Service", key) for key in _MORE_VARIABLES):
        return []
    assigned = set(_ASSIGNED.findall(" ".join(unit.setting("Service", "Environment"))))
    if unit.setting("Service", "User") or unit.setting("Service", "DynamicUser"):
        assigned |= _OF_LOGIN
    named = (m["braced"] or m["plain"] for word in words[1:] for m in _VARIABLE.finditer(word))
    return [
        name
        for name in dict.fromkeys(named)
        if name not in assigned and not _SET_BY_SYSTEMD.fullmatch(name)
    ]


def _with_variables(unit: Unit, key: str, words: list[str], unset: list[str]) -> UnreadCommand:
    names = " and ".join(f"${name}" for name in unset)
    config = f"{unit_option(unit.name)}.serviceConfig.{key}"
    told = f"{key} gets nothing for {names}, which nothing sets: systemd puts variables in before it starts anything"
    if any(_SHELL.search(word) for word in words):
        return UnreadCommand(
            told,
            f"# {unit.name}: write two dollars where its shell is to read one: $${unset[0]} in {config}.",
        )
    options = ", ".join(f"{unit_option(unit.name)}.environment.{name}" for name in unset)
    return UnreadCommand(
        told, f"# {unit.name}: give it a value, {options}, or take it out of {config}."
    )
