"""The journal: its tail by unit, its entries by time, what is wrong in it, and journald's
settings; all bounded.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.systemd.unit import unit_name
from pytest_nixos.observe.text import lines, pairs, read_json, split_lines, whole

__all__ = ["JOURNAL_FACTS", "JournalEntry", "journal", "recent_journal", "show_journal"]

_FIELDS = "MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER"
_MOST_CHARACTERS = 1000
# Longer messages are printed as null unless --all is given, journalctl(1); each may then be of any
# size.
_MOST_BYTES = 512 * 1024
_INFO = 6


class JournalEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry.

    :param time_s: the guest's wall clock, seconds since 1970.
    :param unit: the unit that wrote it or, of systemd's own messages, that it is about; ``""`` if
        none.
    :param source: the program's name.
    :param priority: 0 (emergency) to 7 (debug), syslog(3).
    :param message: at most 1,000 characters; undecodable bytes replaced.
    """

    time_s: float
    unit: str
    source: str
    priority: int
    message: str


def show_journal(*options: str, most_bytes: int) -> str:
    """Return the command that prints what `options` of journalctl(1) select, at most the last
    `most_bytes` bytes.
    """
    command = shlex.join(["journalctl", "--quiet", "--no-pager", *options])
    return f"{command} | tail -c {most_bytes}"


def recent_journal(
    seconds: float, *, most: int = 200, name: str = "recent-journal"
) -> Probe[Sequence[JournalEntry]]:
    """Ask for the entries of this boot's last `seconds`.

    :param most: at most so many, the newest.
    """
    show = ["--boot", f"--since=-{math.ceil(seconds)}s", f"--lines={most}"]
    show += ["--output=json", f"--output-fields={_FIELDS}"]
    script = show_journal(*show, most_bytes=_MOST_BYTES)
    return Probe(name=name, script=script, parse=lambda output: _entries(output.text))


def journal(
    unit: str, *, lines: int = 50, max_bytes: int = 65536, name: str | None = None
) -> Probe[Sequence[str]]:
    """Ask for the tail of one unit's journal of this boot.

    :param lines: at most so many, newest last.
    :param max_bytes: at most so many bytes, cut at the front.
    """
    show = ["--boot", "--output=short-iso", f"--lines={lines}", f"--unit={unit_name(unit)}"]
    return Probe(
        name=name or f"journal:{unit_name(unit)}",
        script=show_journal(*show, most_bytes=max_bytes),
        parse=lambda output: tuple(split_lines(output.text)),
    )


def _entries(text: str) -> Sequence[JournalEntry]:
    found = []
    for line in text.split("\n"):
        # The first line may be cut.
        try:
            fields = read_json(line)
        except ValueError:
            continue
        if isinstance(fields, dict):
            found.append(_entry(fields))
    return tuple(found)


def _entry(fields: Mapping[str, Any]) -> JournalEntry:
    priority = _text(fields.get("PRIORITY"))
    time_us = _text(fields.get("__REALTIME_TIMESTAMP"))
    return JournalEntry(
        time_s=(whole(time_us) or 0) / 1e6,
        unit=_text(fields.get("UNIT")) or _text(fields.get("_SYSTEMD_UNIT")),
        source=_text(fields.get("SYSLOG_IDENTIFIER")),
        priority=int(priority) if priority in tuple("01234567") else _INFO,
        message=_text(fields.get("MESSAGE"))[:_MOST_CHARACTERS],
    )


def _text(value: object) -> str:
    """Read a field: text, bytes as a list of numbers, several values as a list of either, or
    null if too long.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        if all(isinstance(item, int) and 0 <= item <= 255 for item in value):
            return bytes(value).decode(errors="replace")
        return _text(value[0])
    return ""


def _ini(text: str) -> dict[str, str]:
    """Read ``systemd-analyze cat-config``: the last assignment of a key counts."""
    kept = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith(("#", ";")))
    return pairs(kept)


JOURNAL_FACTS: Mapping[str, Fact] = {
    "settings": Fact(
        script="systemd-analyze cat-config systemd/journald.conf",
        parse=_ini,
        about="journald's settings, all files taken together",
    ),
    "errors": Fact(
        script="journalctl --boot --priority=err --no-pager --quiet --output=cat | head -n 200; true",
        parse=lines,
        needs=("journalctl", "head"),
        about="messages of this boot of priority error and worse",
    ),
}
