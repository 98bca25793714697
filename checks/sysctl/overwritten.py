"""Which declared units write a sysctl once it has been set."""

from __future__ import annotations

import re

from pytest_nixos import HostConfig, observe

__all__ = ["writers_of"]

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
        if unit.enabled and any(writes.search(text) for text in observe.started_texts(unit))
    )
