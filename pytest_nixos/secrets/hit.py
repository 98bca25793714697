"""What a search for secrets yields: where, of what kind, and never the secret itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Found", "Hit", "masked"]

_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A part of a text that one rule takes for a secret; it does not leave this room.

    :param start: offset of the secret in the text.
    :param end: offset behind it.
    :param kind: what it is, for a report.
    :param known: whether its shape alone says what it is, as a prefix or checksum does; a value found by
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
    """

    line: int
    kind: str
    shown: str
    placeholder: bool = False

    def __str__(self) -> str:
        return f"{self.kind} ({self.shown})"


def masked(secret: str) -> str:
    """Return the first characters of a secret: at most four, and at most a quarter of it."""
    return f"{secret[: min(_SHOWN, len(secret) // 4)]}…"
