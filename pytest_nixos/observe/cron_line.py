"""Lines of a crontab that cron cannot read. It says so in its own log at most, and runs without them."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["cron_accounts", "unread_jobs"]

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = (
    *("jan", "feb", "mar", "apr", "may", "jun"),
    *("jul", "aug", "sep", "oct", "nov", "dec"),
)
# crontab(5): what each field is called, its least and greatest number, and names for numbers.
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_NICKNAMES = frozenset(
    f"@{word}"
    for word in ("reboot", "yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly")
)
_ASSIGNMENT = re.compile(r"[\"']?[A-Za-z_]\w*[\"']?\s*=")
_PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?")
_LEAST_WORDS = len(_FIELDS) + 2


def unread_jobs(text: str) -> Iterator[tuple[int, str]]:
    """Give each line of the system's crontab that cron cannot read, with the reason.

    :return: line from 1, and words.
    """
    for number, words in _jobs(text):
        if words[0].startswith("@"):
            if words[0] not in _NICKNAMES:
                yield number, f"{words[0]} is no time that cron knows"
            elif len(words) < 3:
                yield number, "a job has a time, an account and a command"
        elif len(words) < _LEAST_WORDS:
            yield number, "a job has five fields of time, an account and a command"
        else:
            for written, (what, least, most, names) in zip(words, _FIELDS, strict=False):
                if not _is_read(written, least, most, names):
                    yield number, f"{written} is no {what}"


def cron_accounts(text: str) -> Iterator[str]:
    """Give the account that each job of the system's crontab runs as."""
    for _, words in _jobs(text):
        place = 1 if words[0].startswith("@") else len(_FIELDS)
        if len(words) > place + 1:
            yield words[place]


def _jobs(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#") and not _ASSIGNMENT.match(stripped):
            yield number, stripped.split()


def _is_read(written: str, least: int, most: int, names: tuple[str, ...]) -> bool:
    for part in written.lower().split(","):
        match = _PART.fullmatch(part)
        if match is None or match["step"] == "0":
            return False
        ends = [
            _number(word, names, least)
            for word in (match["first"], match["last"])
            if word is not None
        ]
        if any(end is None or not least <= end <= most for end in ends):
            return False
    return True


def _number(word: str, names: tuple[str, ...], least: int) -> int | None:
    if word in names:
        return names.index(word) + (least if least == 1 else 0)
    return int(word) if word.isdecimal() else None
