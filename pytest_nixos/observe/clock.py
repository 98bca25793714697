"""The clock of a machine and the service that sets it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import pairs

__all__ = ["CLOCK_FACTS"]

Json = Any

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(text: str) -> float | None:
    """Read a span as systemd prints it: ``34min 8s``."""
    parts = re.findall(r"([\d.]+)\s*(us|ms|s|min|h|d)\b", text)
    return sum(float(n) * _UNITS_S[unit] for n, unit in parts) if parts else None


def _timesync(text: str) -> dict[str, Json]:
    found = pairs(text)
    servers = found.get("SystemNTPServers", "").split() + found.get("LinkNTPServers", "").split()
    return {
        "servers": servers or found.get("FallbackNTPServers", "").split(),
        "poll-max-s": _seconds(found.get("PollIntervalMaxUSec", "")),
    }


CLOCK_FACTS: Mapping[str, Fact] = {
    "synchronised": Fact(
        script="timedatectl show --property=NTP --property=NTPSynchronized",
        parse=pairs,
        about="whether a time service is on and the clock is synchronised",
    ),
    "timesync": Fact(
        script="systemctl is-active --quiet systemd-timesyncd || exit 3; timedatectl show-timesync",
        parse=_timesync,
        about="time servers and the longest poll interval in seconds",
        lacking="the machine does not run systemd-timesyncd",
    ),
}
