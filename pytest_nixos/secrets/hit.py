"""What a search for secrets yields: where, of what kind, and never the secret itself."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

__all__ = ["Found", "Hit", "mark_of", "masked", "template_marks"]

_SHOWN = 4
_MARK = re.compile(r"[0-9a-f]{64}")
_REPLACED = re.compile(r"replace-secret\s+[\"']?([0-9a-f]{64})\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A part of a text that one rule takes for a secret; it does not leave this room.

    :param start: offset of the secret in the text.
    :param end: offset behind it.
    :param kind: what it is, for a report.
    :param known: whether its shape alone says what it is, as a prefix or checksum does; a value
        found by
        the name beside it is held to be a secret only if it looks like one.
    """

    start: int
    end: int
    kind: str
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One secret of a text.

    :param line: number of its first line, from 1.
    :param shown: at most four characters of it, and at most a quarter.
    :param placeholder: whether it stands where a secret belongs and is none (``changeme``).
    :param mark: digest of a value of 64 hexadecimal digits, by which :func:`template_marks` of
        another file may know
        it; ``""`` for any other value, whose digest could be guessed from.
    """

    line: int
    kind: str
    shown: str
    placeholder: bool = False
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.shown})"


def masked(secret: str) -> str:
    """Return the first characters of a secret: at most four, and at most a quarter of it."""
    return f"{secret[: min(_SHOWN, len(secret) // 4)]}…"


def mark_of(value: str) -> str:
    """Return a digest of a value that may be a template's mark, ``""`` of any other."""
    return hashlib.sha256(value.encode()).hexdigest() if _MARK.fullmatch(value) else ""


def template_marks(text: str) -> frozenset[str]:
    """Return digests of what a script fills in: ``replace-secret MARK SECRET-FILE TEMPLATE``.

    nixpkgs' modules put the SHA-256 of a secret file's path where the secret will stand, and
    replace it at start.
    """
    return frozenset(mark_of(mark) for mark in _REPLACED.findall(text))
