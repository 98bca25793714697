"""Which declared units write a sysctl once it has been set."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos import HostConfig, Unit

__all__ = ["writers_of"]

# systemd.service(5): the lines that start something.
_STARTS = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecCondition")
_STORE_FILE = re.compile(r"/nix/store/[^\s;\"']+")
_MOST_BYTES = 65536
# A comment of a shell or of Python; ``#`` inside of a word begins none.
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
_CONTINUED = re.compile(r"\\\n\s*")
# The ways to write a file that scripts take: a redirection, a program that is given the file to
# write, and Python's own.
_WRITES_FILE = r"""
    (?: >>? \| ? \s* ["']?
      | \b tee \b (?: \s+ [^|;&\n]*? )? [\s"']
      | \b of= ["']?
      | \b (?:cp|install|ln|mv) \s [^|;&\n]* [\s"']
    ) {path} (?![\w./-])
  | {path} ["'] \s* (?: \) \s* \. \s* write_(?:text|bytes) | , \s* (?:mode \s* = \s*)? ["'] [rwab]* [wa+] )
"""
# sysctl(8) writes each ``key=value`` that it is given, with ``-w`` or without.
_WRITES_KEY = r"\bsysctl\b [^|;&\n]* [\s\"'] (?:{keys}) [\"']? \s* = "


def writers_of(key: str, host: HostConfig) -> tuple[str, ...]:
    """Return the units that write a sysctl in a line or a script that they start; what only reads
    it, or names it in a comment, is none.

    Scripts are read where this machine has them in its store, as it has what it built.

    :param key: with dots.
    """
    path = key.replace(".", "/")
    file = re.escape(f"/proc/sys/{path}")
    keys = f"{re.escape(key)}|{re.escape(path)}"
    writes = re.compile(
        f"{_WRITES_FILE.format(path=file)} | {_WRITES_KEY.format(keys=keys)}", re.VERBOSE
    )
    return tuple(
        name
        for name, unit in sorted(host.units.items())
        if unit.enabled and any(writes.search(text) for text in _texts(unit))
    )


def _texts(unit: Unit) -> Iterator[str]:
    for start in _STARTS:
        for line in unit.setting("Service", start):
            yield line
            for name in _STORE_FILE.findall(line):
                yield _COMMENT.sub("", _CONTINUED.sub(" ", _script(Path(name))))


def _script(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(_MOST_BYTES)
        return head.decode(errors="replace") if head.startswith(b"#!") else ""
    return ""
