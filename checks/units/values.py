"""Values that systemd does not take: the one that was probably meant."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping

__all__ = ["right_value"]

# systemd.service(5), systemd.exec(5), systemd.kill(5), systemd.socket(5).
_WORDS: Mapping[str, tuple[str, ...]] = {
    "Restart": (
        *("no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"),
    ),
    "Type": ("simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle"),
    "KillMode": ("control-group", "mixed", "process", "none"),
    "NotifyAccess": ("none", "main", "exec", "all"),
    "ProtectSystem": ("yes", "no", "full", "strict"),
    "ProtectHome": ("yes", "no", "read-only", "tmpfs"),
    "ProtectProc": ("noaccess", "invisible", "ptraceable", "default"),
    "ProcSubset": ("all", "pid"),
    "DevicePolicy": ("auto", "closed", "strict"),
    "OOMPolicy": ("continue", "stop", "kill"),
    "StandardOutput": ("inherit", "null", "tty", "journal", "kmsg", "journal+console", "socket"),
    "StandardError": ("inherit", "null", "tty", "journal", "kmsg", "journal+console", "socket"),
    "IOSchedulingClass": ("none", "realtime", "best-effort", "idle"),
    "CPUSchedulingPolicy": ("other", "batch", "idle", "fifo", "rr"),
}
# systemd.time(7).
_CALENDAR = (
    *("minutely", "hourly", "daily", "weekly", "monthly", "yearly", "quarterly", "semiannually"),
    *("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
)
_SPAN = re.compile(r"(?<=\d)(\s*)(min|sec|hr)s\b")
_CLOCK = re.compile(r"(?<![\d:])(\d{1,2})(?::(\d\d))?\s*([ap])m\b", re.IGNORECASE)
_SIZE = re.compile(r"(\d+)\s*([KMGT])(?:i?B)?", re.IGNORECASE)
_UNIT = re.compile(r"[\w@:.\\-]+")


def right_value(key: str, value: str, units: Iterable[str] = ()) -> str:
    """Return the value that was probably meant, ``""`` where nobody can tell.

    :param key: the directive that it is a value of.
    :param units: names of units of the host.
    """
    if key in _WORDS:
        found = _nearest(value.lower(), _WORDS[key])
    elif key == "OnCalendar":
        found = _calendar(value)
    elif key in ("Slice", "CPUQuota"):
        found = _COMPLETED[key](value)
    elif key.endswith("Sec"):
        found = _SPAN.sub(r"\1\2", value)
    elif key.startswith("Memory") and (size := _SIZE.fullmatch(value)):
        found = f"{size[1]}{size[2].upper()}"
    else:
        known = sorted(units)
        words = value.split()
        found = " ".join(w if w in known else _nearest(w, known) or w for w in words)
    return "" if found == value else found


_COMPLETED: Mapping[str, Callable[[str], str]] = {
    "Slice": lambda value: f"{value}.slice" if _UNIT.fullmatch(value) else "",
    "CPUQuota": lambda value: f"{value}%" if value.isdecimal() else "",
}


def _calendar(value: str) -> str:
    words = _CLOCK.sub(_of_24_hours, value).split(" ")
    *before, last = words
    if "/" in last and last[:1].isalpha():
        last = _nearest(last, sorted(zoneinfo.available_timezones()))
        return " ".join([*before, last]) if last else ""
    known = {word.lower(): word for word in _CALENDAR}
    right = [
        known.get(_nearest(word.lower(), known), word) if word.isalpha() else word for word in words
    ]
    return " ".join(right)


def _of_24_hours(clock: re.Match[str]) -> str:
    hour = int(clock[1]) % 12 + (12 if clock[3].lower() == "p" else 0)
    return f"{hour:02}:{clock[2] or '00'}"


def _nearest(written: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(written, list(known), n=1, cutoff=0.7)), "")
