"""Lines that were read and not done, which fails nothing: a module that no kernel package has, a value
that a file below ``/sys`` does not take, a line of an ``EnvironmentFile=`` that assigns nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["lost_variables", "undone_lines"]

# src/shared/module-util.c and src/tmpfiles/tmpfiles.c of systemd. What else they say may be for want of a device or
# of a right that a test's machine lacks.
_MODULE = re.compile(r"Failed to find module '(?P<what>[\w.-]+)'")
_DENIED = re.compile(r"Module '(?P<what>[\w.-]+)' is deny-listed")
_VALUE = re.compile(r"Failed to write file \"?(?P<what>/[^\":]+)\"?: Invalid argument")
_UNSAFE = re.compile(
    r"Detected unsafe path transition (?P<step>.+) during canonicalization of (?P<what>/?\S+?)\.?$"
)
_RULE = re.compile(r"(?P<file>/etc/(?P<kind>[\w-]+)\.d/[^:]+):(?P<line>\d+):(?P<text>.*)")
# src/core/execute.c of systemd. What stands behind the name may be a secret.
_NO_ASSIGNMENT = re.compile(
    r"(?P<unit>[\w@:.\\-]+\.service): Ignoring invalid environment assignment '(?P<name>[^'=]*)=.*': (?P<file>/\S+)$"
)


def lost_variables(said: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Give the service, the file and the words of each line of an ``EnvironmentFile=`` that systemd
    passed over.

    :param said: messages of systemd.
    """
    for match in filter(None, map(_NO_ASSIGNMENT.fullmatch, said)):
        name = match["name"]
        hint = ": an assignment has no export before it" if name.startswith("export ") else ""
        yield match["unit"], match["file"], f"{match['unit']} goes without '{name}='{hint}"


def undone_lines(said: Iterable[str], rules: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    """Give each line that was not done.

    :param said: messages of the two programs.
    :param rules: lines of their files, as ``grep -Hn`` prints them.
    :return: file, line from 1, and words.
    """
    found = {kind: dict[str, tuple[str, int]]() for kind in ("modules-load", "tmpfiles")}
    for match in filter(None, map(_RULE.fullmatch, rules)):
        words = match["text"].split()
        names = words[:1] if match["kind"] == "modules-load" else words[1:2]
        for name in names:
            known = found.get(match["kind"], {})
            known.setdefault(_plain(name), (match["file"], int(match["line"])))
    for line in said:
        for kind, what, text in _told(line):
            if place := found[kind].get(_plain(what)):
                yield *place, text


def _told(line: str) -> Iterator[tuple[str, str, str]]:
    if match := _MODULE.search(line):
        yield "modules-load", match["what"], f"no kernel module is called {match['what']}"
    if match := _DENIED.search(line):
        yield (
            "modules-load",
            match["what"],
            f"{match['what']} is among boot.blacklistedKernelModules, and not loaded",
        )
    if match := _VALUE.search(line):
        yield "tmpfiles", match["what"], f"{match['what']} does not take that value"
    # A container does not own /proc and /sys.
    if (match := _UNSAFE.search(line)) and "owned by nobody" not in match["step"]:
        path = "/" + match["what"].lstrip("/")
        yield "tmpfiles", path, f"not done, since {match['step']} is an unsafe way to it"


def _plain(name: str) -> str:
    return name if name.startswith("/") else name.replace("-", "_")
