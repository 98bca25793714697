"""JSON reports of earlier runs, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Finding
from pytest_nixos.report.formats.json_report import SCHEMA_VERSION

__all__ = ["SavedReport", "read_report"]

Json = Any
_MOST_BYTES = 512 << 20


class SavedReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a JSON report says.

    :param run: as :class:`pytest_nixos.report.facts.RunFacts` was written.
    """

    path: Path
    run: Mapping[str, Json]
    findings: tuple[Finding, ...]

    @property
    def hosts(self) -> Mapping[str, Mapping[str, Json]]:
        """Facts of its hosts by name."""
        return dict(self.run.get("hosts") or {})

    @property
    def started_at(self) -> str:
        """When that run began, ISO 8601 with zone."""
        return str(self.run.get("started_at", ""))


def read_report(path: Path, *, asked_by: str) -> SavedReport:
    """Read a JSON report.

    :param asked_by: the option or command that names it, for the error.
    :raises SettingsError: if it is not there, no JSON report of this plugin, of another version or
        damaged.
    """
    remedy = "name a file that --nixos-report json:PATH wrote"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SettingsError(f"{asked_by} {path}: is larger than 512 MiB", remedy=remedy)
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise SettingsError(
            f"{asked_by} {path}: cannot be read: {err.strerror or err}", remedy=remedy
        ) from err
    except (ValueError, RecursionError) as err:
        raise SettingsError(f"{asked_by} {path}: is no JSON: {err}", remedy=remedy) from err
    if not isinstance(document, Mapping) or not {"version", "run", "findings"} <= set(document):
        raise SettingsError(f"{asked_by} {path}: is no report of pytest-nixos", remedy=remedy)
    if document["version"] != SCHEMA_VERSION:
        raise SettingsError(
            f"{asked_by} {path}: is a report of version {document['version']!r}, expected {SCHEMA_VERSION}",
            remedy="write it anew with this pytest-nixos: --nixos-report json:PATH",
        )
    try:
        dict(document["run"]["hosts"])
        findings = tuple(Finding.from_json(each) for each in document["findings"])
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise SettingsError(
            f"{asked_by} {path}: is damaged, or of another pytest-nixos: {type(err).__name__} {err}",
            remedy=remedy,
        ) from err
    return SavedReport(path=path, run=document["run"], findings=findings)
