"""Text that strangers wrote, made fit for a terminal or a file: the one place that knows control
characters.

What a guest, a flake or Nix says may hold anything. Three questions are asked of it: what may a
reader see (:func:`printable`), what did a program mean to say (:func:`without_escapes`), and what
fits on a line (:func:`one_line`).
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["one_line", "printable", "printable_lines", "without_escapes"]

# ECMA-48, and what systemd and the initial ramdisk of NixOS send.
_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, erase
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: systemd 257 sends one with the terminal's context
    r"|\x1b[ -/]+[0-~]"  # character sets, as in the ESC % G that stage 1 sends
    r"|\x1b[@-Z\\^_]|\x1b[0-9=>c]"  # other escapes
)
# C0 but tab and newline, DEL and C1: the last hold one-byte forms of CSI and OSC.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Controls, formats (bidirectional overrides, zero-width characters), private use, surrogates, line
# and paragraph separators.
_ACTED_UPON = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
# The last two of each plane and 32 more are no characters: no XML document may hold them.
_NO_CHARACTERS = range(0xFDD0, 0xFDF0)


def printable(text: str) -> str:
    """Replace every character that a terminal or a text viewer might act upon, newlines too;
    tabs stay.

    :return: one line, as long as `text`.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c == "\t" or not _is_acted_upon(c) else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _is_acted_upon(c: str) -> bool:
    point = ord(c)
    if point & 0xFFFE == 0xFFFE or point in _NO_CHARACTERS:
        return True
    return unicodedata.category(c) in _ACTED_UPON


def printable_lines(text: str) -> str:
    """Do the same for text of several lines, whose newlines stay."""
    return "\n".join(printable(line) for line in text.split("\n"))


def without_escapes(text: str) -> str:
    """Drop escape sequences and control characters but tab and newline, as a terminal would not
    show them.
    """
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def one_line(text: str) -> str:
    """Write `text` as one line of words: control characters and runs of blanks become one blank."""
    return " ".join(printable(re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text)).split())
