"""Units that fail while a story is told, and whether the story made them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from pytest_nixos import HostConfig, Machine, observe

__all__ = ["FailedUnit", "failed_units", "newly_failed", "parse", "parted", "why_failed"]

_MARK = "== pytest-nixos unit "
#: systemctl(1): ``--timestamp=unix`` since systemd 247; an older one prints words, which count as
#: unknown.
_ASK = r"""
for unit in %s; do
  printf '== pytest-nixos unit %%s\n' "$unit"
  for timer in $(systemctl show -P TriggeredBy -- "$unit" | tr ' ' '\n' | grep '\.timer$'); do
    printf 'timer=%%s\n' "$(systemctl show --timestamp=unix -P LastTriggerUSec -- "$timer")"
  done
  journalctl --boot --no-pager --quiet --output=short-iso --lines=20 --unit="$unit" | sed 's/^/journal=/'
done
"""


class FailedUnit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit that failed.

    :param timer_s: when a timer started it last, in seconds since 1970; ``None`` where none did, or
        systemd does not tell.
    :param journal: its last lines.
    """

    timer_s: int | None
    journal: str


def newly_failed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return the units that are failed in the second look and were not in the first."""
    return sorted(set(after["failed"].split()) - set(before["failed"].split()))


def parted(
    failed: Iterable[str], known: Mapping[str, FailedUnit], since_s: int
) -> tuple[list[str], list[str]]:
    """Part failed units into those that the story is blamed for, and those that their own timer
    started meanwhile.

    :param since_s: when the story began, in seconds since 1970 by the guest's clock.
    """
    blamed: list[str] = []
    timed: list[str] = []
    for unit in failed:
        about = known.get(unit)
        started = None if about is None else about.timer_s
        (timed if started is not None and started >= since_s > 0 else blamed).append(unit)
    return blamed, timed


def failed_units(machine: Machine, units: Sequence[str]) -> Mapping[str, FailedUnit]:
    """Ask what started some units, and what they said."""
    named = [unit for unit in units if re.fullmatch(r"[\w@.:\\-]+", unit)]
    if not named:
        return {}
    words = " ".join(f"'{unit}'" for unit in named)
    return parse(machine.run(_ASK % words).stdout_text)


def why_failed(
    units: Iterable[str], known: Mapping[str, FailedUnit], host: HostConfig
) -> observe.UnitFailures:
    """Return why some units failed, in the order of their names."""
    journals = {unit: known[unit].journal.splitlines() if unit in known else [] for unit in units}
    return observe.why_failed(dict(sorted(journals.items())), host)


def parse(text: str) -> Mapping[str, FailedUnit]:
    """Read the answer; what a unit wrote stands behind a word of its own on each line."""
    found: dict[str, FailedUnit] = {}
    for part in re.split(rf"^{_MARK}", text, flags=re.MULTILINE)[1:]:
        unit, _, rest = part.partition("\n")
        times = [int(time) for time in re.findall(r"^timer=@(\d+)$", rest, re.MULTILINE)]
        journal = "\n".join(re.findall(r"^journal=(.*)$", rest, re.MULTILINE))
        found[unit] = FailedUnit(timer_s=max(times, default=None), journal=journal)
    return found
