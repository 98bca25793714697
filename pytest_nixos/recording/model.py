"""What a recording holds: one manifest, and for each host what it declares, what was observed of it
and what was found.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.report.formats.json_report import JsonFinding, OutcomeName, published_schema

__all__ = [
    "FORMAT",
    "VERSION",
    "Alteration",
    "Closure",
    "DeclaredFile",
    "FindingsFile",
    "FlakeSeen",
    "HostFiles",
    "Manifest",
    "ObservedFile",
    "Output",
    "recording_schema",
]

Json = Any
FORMAT = "pytest-nixos recording"
#: Grows when a field changes its meaning or goes away.
VERSION = 1


class HostFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the manifest says of one host.

    :param flake: its flake ref; `attr` its name there, `below` where in its tree the flake lies.
    :param backend: how its machine ran, as ``--nixos-backend`` says it; ``""`` where it did not
        evaluate.
    :param failure: why it was not judged, ``""`` if it was.
    :param sha256: of its files by name; they lie in `folder`.
    :param is_home: whether it is one of the flake's ``homeConfigurations``.
    """

    flake: str
    attr: str
    below: str
    backend: str
    failure: str
    folder: str
    sha256: dict[str, str]
    is_home: bool = False


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``recording.json``; written last, so that a run which was cut short left none.

    :param recorded_at: when the run began, ISO 8601 with zone.
    """

    format: str
    version: int
    plugin_version: str
    recorded_at: str
    hosts: dict[str, HostFiles]


class DeclaredFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``declared.json``: the evaluated facts of a host, secrets redacted.

    :param host: ``None`` where it did not evaluate.
    """

    host: HostConfig | None


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one probe printed, secrets redacted.

    :param parameters: of the controls for which it was asked.
    :param script: SHA-256 of its script: what another release would ask otherwise is not read.
    :param mark: begins the title lines of `text`, see :class:`pytest_nixos.observe.base.ProbeOutput`.
    """

    parameters: list[dict[str, Json]]
    script: str
    text: str
    exit_status: int
    mark: str


class FlakeSeen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was read of the flake: its lock, and what was found in its files; these are not kept.

    :param hits: by fact of the kind ``source-scan``; empty where there was nothing to read.
    :param no_flake: why it is none, of the folder of a file.
    """

    lock: dict[str, Json] | None
    lock_tracked: bool | None
    hits: dict[str, list[str]]
    no_flake: str = ""


class Closure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found in the closure, as :class:`pytest_nixos.standards.sources.flake_files.StoreScan`."""

    paths: int
    secrets: list[str]
    private_keys: list[str]
    told: str


class Alteration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A control that does not see in the recording what it saw on the machine, since a secret was
    redacted.

    :param same_with: parameters with which it is judged alike all the same; ``None`` for none.
    """

    same_with: dict[str, Json] | None


class ObservedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``observed.json``: what was seen of a host.

    :param observed_on: day as of which ages are told.
    :param outputs: of probes, by kind of observation.
    :param left_out: kinds that are not kept, and why.
    :param altered: by control.
    """

    observed_on: dt.date
    outputs: dict[str, Output] = {}
    left_out: dict[str, str] = {}
    flake: FlakeSeen | None = None
    closure: Closure | None = None
    altered: dict[str, Alteration] = {}


class FindingsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``findings.json``: what the run said of a host, secrets redacted.

    :param findings: as in a JSON report.
    :param before_waiver: by node id: outcome and reason of what a waiver decided; never another's.
    :param parameters: of each control, by id, as its check judged it.
    """

    findings: list[JsonFinding]
    before_waiver: dict[str, tuple[OutcomeName, str]] = {}
    parameters: dict[str, dict[str, Json]] = {}


def recording_schema() -> str:
    """Return the JSON schemas of a recording's files."""
    kinds = (Manifest, DeclaredFile, ObservedFile, FindingsFile)
    _, definitions = msgspec.json.schema_components(kinds, ref_template="#/$defs/{name}")
    return published_schema(
        {
            "title": f"{FORMAT}, version {VERSION}",
            "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"} for kind in kinds],
            "$defs": definitions,
        }
    )
