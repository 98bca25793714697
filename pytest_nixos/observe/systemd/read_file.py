"""Configuration that a declared unit reads: the files that its lines name, and those that these name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pytest_nixos.nix.config.unit import Unit

__all__ = ["ReadFile", "read_files"]

_MOST_BYTES = 262144
# Enough to tell a program from a text.
_HEAD_BYTES = 1024
_MOST_FILES = 64
_NAMED = re.compile(r"(?<![\w.])/(?:nix/store|etc)/[\w.+?=@/-]*[\w+?=@-]")
# Scripts of the host itself: of an option, of writeShellScript and of writeShellScriptBin (nixpkgs,
# nixos/lib/systemd-lib.nix). That of a package lies beside a version.
_OF_HOST = re.compile(
    r"/nix/store/[^/]+|/nix/store/[0-9a-z]+-(?:unit-script-)?(?P<name>[^/]+)/bin/(?P=name)"
)
_SHELL = re.compile(rb"#! ?\S*/(?:ba|da)?sh\b")
# What a login shell reads: lists of places that need not be there.
_OF_SHELLS = re.compile(r"/etc/(?:profile|set-environment|bashrc|bash_logout|z\w+|fish/.*|inputrc)")
_CODE = (".py", ".js", ".mjs", ".rb", ".pl", ".lua", ".php")
_COMMENT = re.compile(r"^\s*(?:#|;|//).*$|(?<=\s)#\s.*$", re.MULTILINE)


class ReadFile(NamedTuple):
    """One file.

    :param path: as it is named.
    :param text: without comments; line numbers are those of the file.
    :param is_script: whether a shell runs it.
    """

    path: str
    text: str
    is_script: bool


def read_files(unit: Unit, toplevel: Path) -> Iterator[ReadFile]:
    """Give each text file of the store and of ``/etc`` that a service's lines name, and each that one of
    these names. Programs are left out.

    :param toplevel: the host's system, in the store of this machine; its ``/etc`` is read there.
    """
    lines = (value for values in unit.settings.get("Service", {}).values() for value in values)
    waiting = [path for line in lines for path in _NAMED.findall(line)]
    seen: set[str] = set()
    while waiting and len(seen) < _MOST_FILES:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        if (file := _read(path, toplevel)) is not None:
            yield file
            waiting += _NAMED.findall(file.text)


def _read(path: str, toplevel: Path) -> ReadFile | None:
    place = toplevel / path.removeprefix("/") if path.startswith("/etc/") else Path(path)
    if path.endswith(_CODE) or _OF_SHELLS.fullmatch(path):
        return None
    with contextlib.suppress(OSError), place.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        is_script = bool(_SHELL.match(head))
        is_program = b"\0" in head or (head.startswith(b"#!") and not is_script)
        if is_program or (is_script and not _OF_HOST.fullmatch(path)):
            return None
        whole = head + file.read(_MOST_BYTES)
        return ReadFile(path, _COMMENT.sub("", whole.decode(errors="replace")), is_script)
    return None
