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
# What counts in code: what begins a comment, a string or a bracket, and other text without spaces.
_CODE = re.compile(r"""''|["#{}()\[\]]|(?:[^\s"#'{}()\[\]]|'(?!'))+""")
# By what a string begins with: its end, and what stands for that inside.
_IN_STRING = {
    "''": re.compile(r"""''['$\\]|''"""),
    '"': re.compile(r'\\.?|"', re.DOTALL),
}


class Statement(msgspec.Struct, frozen=True):
    """One assignment with all its lines, or one line of comment.

    :param text: the lines, without the last line break.
    """

    text: str

    @property
    def is_comment(self) -> bool:
        """Whether it is a comment or an empty line."""
        return _is_comment(self.text)

    @property
    def assignment(self) -> tuple[str, str] | None:
        """Option path and value as written, of a plain assignment."""
        return _assignment(self.text)


def _is_comment(text: str) -> bool:
    return text.strip() == "" or text.lstrip().startswith("#")


@lru_cache(maxsize=4096)
def _assignment(text: str) -> tuple[str, str] | None:
    match = _ASSIGNMENT.fullmatch(text.strip())
    return None if match is None or _is_comment(text) else (match["path"], match["value"])


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
            if self.quote:
                position = self._end_of_string(line, position)
                continue
            token = _CODE.search(line, position)
            if token is None or token[0] == "#":
                return
            self._take(token[0])
            position = token.end()

    def _end_of_string(self, line: str, position: int) -> int:
        """Return where the string that is open ends, the line's end where it goes on."""
        for token in _IN_STRING[self.quote].finditer(line, position):
            if token[0] == self.quote:
                self.quote = ""
                return token.end()
        return len(line)

    def _take(self, code: str) -> None:
        if code in _IN_STRING:
            self.quote = code
            return
        if code in _OPENING:
            self.depth += 1
        elif code in _CLOSING:
            self.depth -= 1
        self.ended = code.endswith(";")
