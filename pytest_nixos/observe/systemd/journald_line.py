"""Settings of journald that it refuses. It starts before there is a journal, and where it cannot
write to the kernel's log, as in a container, nobody is told: its values are read as it reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

__all__ = ["refused_by_journald"]

# config_parse_iec_uint64(), config_parse_sec() and parse_boolean() of systemd, and the words of
# journald.conf(5). What a key that is not here means is journald's to say.
_SIZE = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:[KMGTPE]?B?|%)\s*)+")
_UNITS = r"usec|us|µs|msec|ms|seconds?|sec|s|minutes?|min|m|hours?|hr|h|days?|d|weeks?|w|months?|M|years?|y"
_SPAN = re.compile(rf"infinity|(?:\d+(?:\.\d+)?\s*(?:{_UNITS})?\s*)+")
_SWITCH = re.compile(r"1|0|yes|no|y|n|true|false|t|f|on|off", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_LEVEL = re.compile(r"emerg|alert|crit|err|warning|notice|info|debug|[0-7]")
_KINDS: Mapping[str, tuple[re.Pattern[str], str]] = {
    **{
        f"{where}{what}": (_SIZE, "a size")
        for where in ("System", "Runtime")
        for what in ("MaxUse", "KeepFree", "MaxFileSize")
    },
    **{f"{where}MaxFiles": (_NUMBER, "a number") for where in ("System", "Runtime")},
    **dict.fromkeys(
        ("MaxRetentionSec", "MaxFileSec", "SyncIntervalSec", "RateLimitIntervalSec"),
        (_SPAN, "a time span"),
    ),
    "RateLimitBurst": (_NUMBER, "a number"),
    "Storage": (
        re.compile("volatile|persistent|auto|none"),
        "none of volatile, persistent, auto, none",
    ),
    "SplitMode": (re.compile("uid|login|none"), "none of uid, none"),
    **{
        f"Forward{where}": (_SWITCH, "a switch")
        for where in ("ToSyslog", "ToKMsg", "ToConsole", "ToWall")
    },
    "Seal": (_SWITCH, "a switch"),
    **{
        f"MaxLevel{where}": (_LEVEL, "a level of syslog")
        for where in ("Store", "Syslog", "KMsg", "Console", "Wall")
    },
}


def refused_by_journald(text: str) -> Iterator[tuple[int, str]]:
    """Give each line of journald.conf(5) whose value journald cannot read, with the reason.

    :return: line from 1, and words.
    """
    section = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if head := re.fullmatch(r"\[(.*)\]\s*", line):
            section = head[1]
        key, equals, value = (part.strip() for part in line.partition("="))
        known = _KINDS.get(key)
        if section != "Journal" or not equals or not value or known is None:
            continue
        pattern, meant = known
        if not pattern.fullmatch(value):
            words = meant if meant.startswith("none") else f"not {meant}"
            yield number, f"{key}={value} is {words}, and ignored"
