"""How guests print text: lines, ``key=value`` lines, and the kernel's escapes."""

from __future__ import annotations

import re

__all__ = ["lines", "pairs", "unescape_octal"]

_OCTAL = re.compile(r"\\([0-7]{3})")


def lines(text: str) -> list[str]:
    """Return the lines of `text` that are not blank, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def pairs(text: str, separator: str = "=") -> dict[str, str]:
    """Return ``key=value`` lines as a mapping; a line without the separator is left out."""
    split = (line.partition(separator) for line in text.splitlines())
    return {key.strip(): value.strip() for key, found, value in split if found}


def unescape_octal(field: str) -> str:
    r"""Undo ``\040`` and the like, by which the kernel writes blanks in names of its tables (seq_file.c)."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)
