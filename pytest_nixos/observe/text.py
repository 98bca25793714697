"""How guests print text: lines, names one a line, ``key=value`` lines, and the kernel's escapes.

Only a newline ends a line here. ``str.splitlines`` also ends one at characters that a file's name
or a user's comment may hold, such as U+0085.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

__all__ = [
    "NAMES",
    "lines",
    "names",
    "pairs",
    "read_json",
    "split_lines",
    "unescape_octal",
    "whole",
]

_WHOLE = re.compile(r"[0-9]{1,20}")
_OCTAL = re.compile(r"\\([0-7]{3})")

#: Bash: turns names that end in NUL into lines, for :func:`names`.
NAMES = r"tr '\n\0' '\001\n'"


def split_lines(text: str) -> Sequence[str]:
    """Return the lines of `text`, blank ones too; a newline at its end begins no line."""
    return text.removesuffix("\n").split("\n") if text else []


def lines(text: str) -> list[str]:
    """Return the lines of `text` that are not blank, stripped."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def names(text: str) -> list[str]:
    """Return the names that a script printed one a line, by way of :data:`NAMES`."""
    return [line.replace("\1", "\n") for line in text.split("\n") if line]


def pairs(text: str, separator: str = "=") -> dict[str, str]:
    """Return ``key=value`` lines as a mapping; a line without the separator is left out."""
    split = (line.partition(separator) for line in text.split("\n"))
    return {key.strip(): value.strip() for key, found, value in split if found}


def unescape_octal(field: str) -> str:
    r"""Undo ``\040`` and the like, by which the kernel writes blanks in names of its tables
    (seq_file.c).
    """
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def whole(text: str) -> int | None:
    """Return the whole number that `text` is, ``None`` if it is none or longer than any number
    of a kernel.
    """
    return int(text) if _WHOLE.fullmatch(text) else None


def read_json(text: str | bytes) -> Any:
    """Read JSON that a guest printed.

    :raises ValueError: if it is none, or nested so deeply that it cannot be read.
    """
    try:
        return json.loads(text)
    except RecursionError as err:
        raise ValueError("nested too deeply") from err
