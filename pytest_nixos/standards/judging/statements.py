"""Remedies taken apart: the statements of a piece of Nix text, as a person would paste them one
by one.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

__all__ = ["Statement", "statements"]

_ASSIGNMENT = re.compile(
    r"""(?P<path>[\w."'<>@:/*+-]+)\s*=\s*(?P<value>.*?);\s*(?:#.*)?""", re.DOTALL
)
_OPENING = "{[("
_CLOSING = "}])"


class Statement(msgspec.Struct, frozen=True):
    """One assignment with all its lines, or one line of comment.

    :param text: the lines, without the last line break.
    """

    text: str

    @property
    def is_comment(self) -> bool:
        """Whether it is a comment or an empty line."""
        return self.text.strip() == "" or self.text.lstrip().startswith("#")

    @property
    def assignment(self) -> tuple[str, str] | None:
        """Option path and value as written, of a plain assignment."""
        match = _ASSIGNMENT.fullmatch(self.text.strip())
        return None if self.is_comment or match is None else (match["path"], match["value"])


@lru_cache(maxsize=4096)
def statements(text: str) -> tuple[Statement, ...]:
    """Split `text` after each line that ends a statement: no bracket and no string is open
    there.
    """
    found: list[Statement] = []
    lines: list[str] = []
    scan = _Scan()
    for line in text.splitlines():
        lines.append(line)
        scan.read(line)
        if scan.is_closed and (scan.ended or line.strip() == "" or line.lstrip().startswith("#")):
            found.append(Statement("\n".join(lines)))
            lines = []
    if lines:
        found.append(Statement("\n".join(lines)))
    return tuple(found)


class _Scan:
    """Follows brackets and strings of Nix text; antiquotation is read as part of its string."""

    def __init__(self) -> None:
        self.depth = 0
        self.quote = ""
        self.ended = False

    @property
    def is_closed(self) -> bool:
        return self.depth == 0 and not self.quote

    def read(self, line: str) -> None:
        self.ended = False
        position = 0
        while position < len(line):
            rest = line[position:]
            step = self._in_string(rest) if self.quote else self._in_code(rest)
            if step == 0:
                return
            position += step

    def _in_string(self, rest: str) -> int:
        if self.quote == "''" and rest.startswith(("'''", "''$", "''\\")):
            return 3
        if self.quote == '"' and rest.startswith("\\"):
            return 2
        if rest.startswith(self.quote):
            width = len(self.quote)
            self.quote = ""
            return width
        return 1

    def _in_code(self, rest: str) -> int:
        if rest.startswith("#"):
            return 0
        if rest.startswith(("''", '"')):
            self.quote = "''" if rest.startswith("''") else '"'
            return len(self.quote)
        if rest[0] in _OPENING:
            self.depth += 1
        elif rest[0] in _CLOSING:
            self.depth -= 1
        if not rest[0].isspace():
            self.ended = rest[0] == ";"
        return 1
