"""What ``switch-to-configuration`` says that it does, read from its output.

Sources: nixos/modules/system/activation/switch-to-configuration.pl (to 24.11) and
pkgs/by-name/sw/switch-to-configuration-ng/src/main.rs (24.05 on) in nixpkgs. Both print the same
lines; the second adds user units, which are left out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

__all__ = ["Announced"]

_UNITS = re.compile(
    r"^(?P<words>(?:warning: )?[A-Za-z ]*?)(?:the following (?:changed |new )?units)"
    r"(?P<more>[a-z ()-]*): (?P<names>.+)$"
)
_SYSTEMD = re.compile(r"^(?:would restart|restarting) systemd(?:\.\.\.)?$")
_FIELDS = {
    "stop": "stopped",
    "stopping": "stopped",
    "start": "started",
    "starting": "started",
    "restart": "restarted",
    "restarting": "restarted",
    "reload": "reloaded",
    "reloading": "reloaded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """Units by what the activation says about them, each in order of name.

    :param left: changed, and left running as they are (``NOT restarting``).
    :param appeared: active afterwards and not before (``the following new units were started``).
    :param failed: failed afterwards and not before.
    :param systemd: whether systemd re-executes itself.
    """

    stopped: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    reloaded: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    appeared: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    systemd: bool = False

    @classmethod
    def parse(cls, output: str) -> Self:
        """Read the output of any action; a dry activation's ``would ...`` lines mean the same
        units.
        """
        found: dict[str, set[str]] = {}
        for field, names in _lines(output):
            found.setdefault(field, set()).update(names)
        return cls(
            **{field: tuple(sorted(names)) for field, names in found.items()},
            systemd=any(_SYSTEMD.match(line) for line in output.splitlines()),
        )

    @property
    def touched(self) -> frozenset[str]:
        """Units that are stopped, started, restarted or reloaded."""
        return frozenset((*self.stopped, *self.started, *self.restarted, *self.reloaded))


def _lines(output: str) -> Iterator[tuple[str, list[str]]]:
    for line in output.splitlines():
        if match := _UNITS.match(line):
            field = _field(match["words"].split(), match["more"].strip())
            if field:
                yield field, [name.strip() for name in match["names"].split(",") if name.strip()]


def _field(words: list[str], more: str) -> str | None:
    if more == "failed":
        return "failed"
    if more == "were started":
        return "appeared"
    if "NOT" in words:
        return "left"
    known = [_FIELDS[word] for word in words if word in _FIELDS]
    return known[0] if known else None
