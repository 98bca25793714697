"""What a declared unit starts, as text: its lines, and the scripts that they name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.nix.config.unit import Unit

__all__ = ["started_texts"]

# systemd.service(5): the lines that start something.
_STARTS = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecCondition")
_STORE_FILE = re.compile(r"/nix/store/[^\s;\"']+")
_MOST_BYTES = 65536
# A comment of a shell or of Python; ``#`` inside of a word begins none.
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
_CONTINUED = re.compile(r"\\\n\s*")


def started_texts(unit: Unit) -> Iterator[str]:
    """Give each line by which a unit starts something, and each script that it names, without
    comments.

    Scripts are read where this machine has them in its store, as it has what it built.
    """
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
