"""Waivers: dated, reasoned exceptions. An expired, unknown or needless one is a failure, not a
comfort.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import glob
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Outcome
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.documents import check_schema, read_document
from pytest_nixos.standards.format import Waiver, WaiversFile

__all__ = [
    "Waiver",
    "apply_waiver",
    "declared_profiles",
    "declared_waivers",
    "find_waiver",
    "idle_waivers",
    "load_waivers",
]

#: What a host says to this plugin; ``nixosModules.default`` of its flake has options for it.
_SAID = "passthru.pytest-nixos"


def load_waivers(path: Path, known_controls: Collection[str]) -> tuple[Waiver, ...]:
    """Read a waivers file.

    :param known_controls: ids that exist.
    :raises CatalogueError: if the file is malformed, a control is unknown, or two entries say the
        same.
    """
    waivers = tuple(read_document(path, WaiversFile).waiver)
    return _checked(waivers, known_controls, source=str(path))


def declared_waivers(
    host: HostConfig, key: str, known_controls: Collection[str]
) -> tuple[Waiver, ...]:
    """Return the waivers that a host declares for itself, ``passthru.pytest-nixos.waivers``.

    :param key: what the run calls the host.
    :raises CatalogueError: as :func:`load_waivers`.
    """
    said = _said(host).get("waivers", [])
    source = f"{key}: {_SAID}.waivers"
    if not isinstance(said, list) or not all(isinstance(entry, dict) for entry in said):
        raise CatalogueError(
            f"{source}: is no list of waivers",
            remedy="write waivers = [ { control; reason; owner; expires; } ]",
        )
    if not said:
        return ()  # holding it against the schema loads a fifth of all modules of a warm run
    document = {"waiver": [{**entry, "host": glob.escape(key)} for entry in said]}
    check_schema(document, "waivers", source=source)
    try:
        waivers = msgspec.convert(document, WaiversFile).waiver
    except msgspec.ValidationError as err:
        raise CatalogueError(f"{source}: {err}", remedy="correct that field") from err
    return _checked(tuple(waivers), known_controls, source=source)


def declared_profiles(host: HostConfig) -> tuple[str, ...]:
    """Return the profiles that a host asks for, ``passthru.pytest-nixos.profiles``."""
    said = _said(host).get("profiles", [])
    return tuple(map(str, said)) if isinstance(said, list) else ()


def _said(host: HostConfig) -> Mapping[str, object]:
    said = host.option(_SAID).value
    return said if isinstance(said, dict) else {}


def _checked(
    waivers: tuple[Waiver, ...], known_controls: Collection[str], *, source: str
) -> tuple[Waiver, ...]:
    seen: set[tuple[str, str]] = set()
    for waiver in waivers:
        if waiver.control not in known_controls:
            raise CatalogueError(
                f"{source}: {waiver.control}: control: is not known"
                f"{did_you_mean(waiver.control, known_controls)}",
                remedy="correct the id, or remove the waiver",
            )
        if (waiver.control, waiver.host) in seen:
            raise CatalogueError(
                f"{source}: {waiver.control}: host: {waiver.host!r} is waived twice",
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

    A failure is waived until the waiver expires. A pass is a failure: the waiver is no longer
    needed. Errors stay errors; what is not applicable stays so.
    """
    who = f"waived by {waiver.owner} until {waiver.expires}: {waiver.reason}"
    if outcome is Outcome.PASSED:
        return Outcome.FAILED, f"the control holds, so the waiver is no longer needed ({who})"
    if outcome is not Outcome.FAILED:
        return outcome, reason
    if waiver.expired(today):
        return Outcome.FAILED, f"the waiver expired on {waiver.expires} ({waiver.reason}); {reason}"
    return Outcome.WAIVED, f"{who} ({reason})"


def idle_waivers(
    waivers: Sequence[Waiver],
    *,
    judged: Mapping[tuple[str, str], tuple[Outcome, str]],
    hosts: Sequence[str],
    selected: Collection[str],
    aliases: Mapping[str, str],
) -> tuple[str, ...]:
    """Say of each waiver that met no judged control why it did not; such a waiver waives
    nothing, and nobody notices.

    :param judged: outcome and reason by control id and host.
    :param hosts: hosts of the run.
    :param selected: ids of the controls that the run's profiles select.
    :param aliases: control id to the id of the control that is judged in its place.
    """
    notices = []
    for waiver in waivers:
        matching = [host for host in hosts if fnmatch.fnmatchcase(host, waiver.host)]
        seen = {h: judged[waiver.control, h] for h in matching if (waiver.control, h) in judged}
        unjudged = {h: why for h, (o, why) in seen.items() if o is Outcome.NOT_APPLICABLE}
        if len(seen) > len(unjudged):
            continue
        if not matching:
            why = f"no host of this run matches it (there are {', '.join(hosts)})"
        elif waiver.control in aliases:
            why = f"the control is judged as {aliases[waiver.control]}: waive that one"
        elif waiver.control not in selected:
            why = "the profiles of this run do not select the control"
        elif unjudged:
            host, reason = next(iter(unjudged.items()))
            why = f"the control is not applicable on {host}: {reason}"
        else:
            why = "no check of this run judged the control"
        notices.append(f"waiver {waiver.control} for {waiver.host} waived nothing: {why}")
    return tuple(notices)
