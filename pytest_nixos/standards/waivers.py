"""Waivers: dated, reasoned exceptions. An expired, unknown or needless one is a failure, not a comfort."""

from __future__ import annotations

import datetime as dt
import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Outcome
from pytest_nixos.standards.documents import read_document
from pytest_nixos.standards.nearest import did_you_mean

__all__ = ["Waiver", "apply_waiver", "find_waiver", "load_waivers", "unused_waivers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """One exception.

    :param host: glob over host names.
    :param owner: who answers for it.
    :param expires: last day on which it counts.
    """

    control: str
    host: str
    reason: str
    owner: str
    expires: dt.date

    def expired(self, today: dt.date) -> bool:
        """Whether its last day is over."""
        return today > self.expires


def load_waivers(path: Path, known_controls: Collection[str]) -> tuple[Waiver, ...]:
    """Read a waivers file.

    :param known_controls: ids that exist.
    :raises CatalogueError: if the file is malformed, a control is unknown, or two entries say the same.
    """
    document = read_document(path, "waivers")
    waivers = tuple(_waiver(path, entry) for entry in document["waiver"])
    seen: set[tuple[str, str]] = set()
    for waiver in waivers:
        if waiver.control not in known_controls:
            raise CatalogueError(
                f"{path}: {waiver.control}: control: is not known"
                f"{did_you_mean(waiver.control, known_controls)}",
                remedy="correct the id, or remove the waiver",
            )
        if (waiver.control, waiver.host) in seen:
            raise CatalogueError(
                f"{path}: {waiver.control}: host: {waiver.host!r} is waived twice",
                remedy="remove one of the two",
            )
        seen.add((waiver.control, waiver.host))
    return waivers


def find_waiver(waivers: Sequence[Waiver], control: str, host: str) -> Waiver | None:
    """Return the first waiver for `control` on `host`."""
    for waiver in waivers:
        if waiver.control == control and fnmatch.fnmatchcase(host, waiver.host):
            return waiver
    return None


def apply_waiver(
    waiver: Waiver, outcome: Outcome, reason: str, *, today: dt.date
) -> tuple[Outcome, str]:
    """Return what becomes of an outcome under a waiver, and why.

    A failure is waived until the waiver expires. A pass is a failure: the waiver is no longer needed.
    Errors stay errors; what is not applicable stays so.
    """
    who = f"waived by {waiver.owner} until {waiver.expires}: {waiver.reason}"
    if outcome is Outcome.PASSED:
        return Outcome.FAILED, f"the control holds, so the waiver is no longer needed ({who})"
    if outcome is not Outcome.FAILED:
        return outcome, reason
    if waiver.expired(today):
        return Outcome.FAILED, f"the waiver expired on {waiver.expires} ({waiver.reason}); {reason}"
    return Outcome.WAIVED, f"{who} ({reason})"


def unused_waivers(
    waivers: Sequence[Waiver], judged: Mapping[str, Collection[str]]
) -> tuple[Waiver, ...]:
    """Return the waivers that met no judged control.

    :param judged: host names by control id.
    """
    return tuple(
        waiver
        for waiver in waivers
        if not any(fnmatch.fnmatchcase(h, waiver.host) for h in judged.get(waiver.control, ()))
    )


def _waiver(path: Path, entry: Mapping[str, str]) -> Waiver:
    try:
        expires = dt.date.fromisoformat(entry["expires"])
    except ValueError as err:
        raise CatalogueError(
            f"{path}: {entry['control']}: expires: {entry['expires']!r} is no date",
            remedy="write it as expires = 2027-01-31",
        ) from err
    return Waiver(
        control=entry["control"],
        host=entry["host"],
        reason=entry["reason"],
        owner=entry["owner"],
        expires=expires,
    )
