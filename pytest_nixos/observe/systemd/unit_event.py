"""What happened to units since the boot: failures, restarts, out-of-memory kills, crashes,
dropped messages.

systemd and journald mark these messages with ids (``sd-messages.h``), so nothing is guessed from
their texts.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import lines, read_json, whole

__all__ = ["UnitEvent", "UnitEventKind", "UnitHistory", "unit_history"]


class UnitEventKind(enum.Enum):
    """What happened to a unit."""

    FAILED = "failed"
    RESTARTED = "restarted"
    OUT_OF_MEMORY = "killed for want of memory"
    CRASHED = "dumped core"
    MESSAGES_DROPPED = "logs too fast"


# https://github.com/systemd/systemd/blob/main/src/systemd/sd-messages.h
_IDS = {
    "d9b373ed55a64feb8242e02dbe79a49c": UnitEventKind.FAILED,
    "5eb03494b6584870a536b337290809b3": UnitEventKind.RESTARTED,
    "fe6faa94e7774663a0da52717891d8ef": UnitEventKind.OUT_OF_MEMORY,
    "fc2e22bc6ee647b6b90729ab34a250b1": UnitEventKind.CRASHED,
    "a596d6fe7bfa4994828e72309e95d61e": UnitEventKind.MESSAGES_DROPPED,
}
# A session of a test that ends badly is told by its own test.
_OF_RUN = re.compile(r"pytest-nixos-session\b")
_MOST_EVENTS = 500
_FIELDS = "MESSAGE,MESSAGE_ID,UNIT,USER_UNIT,COREDUMP_UNIT,OBJECT_SYSTEMD_UNIT"
_MATCHES = " ".join(f"MESSAGE_ID={known}" for known in _IDS)
_KERNEL = r"segfault at|general protection fault|BUG: |WARNING: CPU|Oops|Call Trace:|Out of memory: Killed"
# The first part tells how long this system has been up since systemd started, and when its boot had
# ended.
_READ = f"""
set -o pipefail
title times
systemctl show --property=UserspaceTimestampMonotonic,FinishTimestampMonotonic | tr '\\n' ' '
printf 'Now=%s\\n' "$(</proc/uptime)"
title events
journalctl --boot --no-pager --quiet --output=json --output-fields={_FIELDS} --lines={_MOST_EVENTS} {_MATCHES} || (( $? == 1 )) || exit 3
title kernel
journalctl --boot --dmesg --no-pager --quiet --output=short-monotonic --grep='{_KERNEL}' --lines=50
true
"""


class UnitEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to a unit.

    :param at_s: seconds on the guest's monotonic clock, as ``/proc/uptime`` counts them.
    :param of_user: whether it is a unit of a user's manager.
    """

    kind: UnitEventKind
    unit: str
    at_s: float
    message: str
    of_user: bool = False


class UnitHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What happened since this boot.

    :param answered: whether systemd and the journal answered; nothing may be concluded if not.
    :param now_s: the time of the look, on the clock of :attr:`UnitEvent.at_s`.
    :param up_s: seconds since systemd started.
    :param settled_at_s: when the boot had ended, on the clock of :attr:`UnitEvent.at_s`; ``None``
        while it goes on.
    :param kernel: kernel messages that speak of a crash; a container sees none of its kernel's.
    """

    answered: bool
    now_s: float
    up_s: float
    settled_at_s: float | None
    events: tuple[UnitEvent, ...]
    kernel: tuple[str, ...]

    def after_boot(self) -> tuple[UnitEvent, ...]:
        """Return what happened once the boot had ended, to others than the units in which this run
        has its commands executed.
        """
        settled = self.settled_at_s
        if settled is None:
            return ()
        return tuple(e for e in self.events if e.at_s > settled and not _OF_RUN.match(e.unit))


def unit_history() -> Probe[UnitHistory]:
    """Ask for what happened to units since the boot."""
    return Probe(name="unit-history", script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> UnitHistory:
    parts = dict(output.records)
    times = dict(word.partition("=")[::2] for word in parts.get("times", "").split())
    started_s = _seconds(times.get("UserspaceTimestampMonotonic"))
    settled_s = _seconds(times.get("FinishTimestampMonotonic"))
    now = times.get("Now", "")
    now_s = float(now) if _is_number(now) else 0.0
    up_s = now_s - started_s if started_s is not None else 0.0
    return UnitHistory(
        answered=output.exit_status == 0 and started_s is not None and now_s > 0.0,
        now_s=now_s,
        up_s=max(0.0, up_s),
        settled_at_s=settled_s or None,
        events=_events(parts.get("events", "").split("\n")),
        kernel=tuple(lines(parts.get("kernel", ""))),
    )


def _events(found_lines: Sequence[str]) -> tuple[UnitEvent, ...]:
    found = []
    for line in found_lines:
        try:
            entry = read_json(line)
        except ValueError:
            continue
        kind = _IDS.get(str(entry.get("MESSAGE_ID"))) if isinstance(entry, dict) else None
        if kind is not None:
            found.append(_event(kind, entry))
    return tuple(found)


def _event(kind: UnitEventKind, entry: Mapping[str, Any]) -> UnitEvent:
    keys = ("UNIT", "USER_UNIT", "COREDUMP_UNIT", "OBJECT_SYSTEMD_UNIT")
    unit = next((str(entry[key]) for key in keys if isinstance(entry.get(key), str)), "")
    message = entry.get("MESSAGE")
    return UnitEvent(
        kind=kind,
        unit=unit,
        at_s=_seconds(str(entry.get("__MONOTONIC_TIMESTAMP", ""))) or 0.0,
        message=message[:500] if isinstance(message, str) else "",
        of_user=not isinstance(entry.get("UNIT"), str) and isinstance(entry.get("USER_UNIT"), str),
    )


def _seconds(microseconds: str | None) -> float | None:
    number = whole(microseconds or "")
    return None if number is None else number / 1e6


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
