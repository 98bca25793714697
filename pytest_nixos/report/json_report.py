"""The JSON report: everything, for programs. Its published schema is made from the model in this
file.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from pytest_nixos.findings import Finding
from pytest_nixos.report.facts import RunFacts

__all__ = ["SCHEMA_VERSION", "JsonReport", "json_schema", "write_json"]

SCHEMA_VERSION = 1

OutcomeName = Literal["passed", "failed", "not-applicable", "waived", "error"]
SeverityName = Literal["STYLE", "LOW", "MEDIUM", "HIGH", "CRITICAL"]


class JournalLine(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the machine's journal; `priority` as in syslog, 0 to 7."""

    time_s: float
    unit: str
    source: str
    priority: int
    message: str


class JsonFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one control on one host.

    `expected` and `observed` have the shape that the control gives them. `caused_by` names the
    controls of the same host whose findings explain this one (``machine``: the host's own failure),
    and `explains` the other way round; both rest on the subjects (``unit:sshd.service``) that
    findings blame and rest on.
    """

    control: str
    title: str
    suite: str
    host: str
    backend: str
    severity: SeverityName
    outcome: OutcomeName
    judged_on: str
    reason: str
    threat: str
    remedy: str
    expected: Any
    observed: Any
    attachments: dict[str, str]
    references: dict[str, list[str]]
    journal: list[JournalLine]
    node_id: str
    duration_s: float
    rests_on: list[str]
    blames: list[str]
    caused_by: list[str]
    explains: list[str]


class JsonHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host of the run; where it did not evaluate, only the first three.

    `failure` is what kept the host from being judged, `why` the same in a few words.
    `changed_options` maps an option to what the host declares and what the machine had.
    `circumstances` are the machine's that ran pytest: its `pace`, the `pressure` on it, and what
    the guest's kernel was told for it; and `secrets`: how many of the host's have test values.
    """

    ref: str
    phases_s: dict[str, float]
    failure: str | msgspec.UnsetType | None = msgspec.UNSET
    why: str = ""
    backend: str | msgspec.UnsetType = msgspec.UNSET
    release: str | msgspec.UnsetType = msgspec.UNSET
    version: str | msgspec.UnsetType = msgspec.UNSET
    warnings: list[str] | msgspec.UnsetType = msgspec.UNSET
    changed_options: dict[str, list[Any]] | msgspec.UnsetType = msgspec.UNSET
    circumstances: dict[str, Any] = {}


class JsonRun(msgspec.Struct, frozen=True, kw_only=True):
    """The run as a whole; `started_at` is ISO 8601 with zone, `incomplete` says which workers
    died.
    """

    plugin_version: str
    started_at: str
    duration_s: float
    hosts: dict[str, JsonHost]
    fail_on: SeverityName
    waiver_notices: list[str]
    upgrades: dict[str, dict[str, Any]]
    incomplete: list[str]


class JsonReport(msgspec.Struct, frozen=True, kw_only=True):
    """Report of a run of pytest-nixos; `findings` are sorted worst first, causes before what
    they explain.

    ``version`` grows when a field changes its meaning or goes away; new fields do not change it.
    """

    version: Literal[1]
    run: JsonRun
    counts: dict[OutcomeName, int]
    findings: list[JsonFinding]


def write_json(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write findings and run facts as one JSON document, in the order in which they are given.

    :raises msgspec.ValidationError: if a finding does not fit the published model.
    """
    counts = Counter(finding.outcome.value for finding in findings)
    report = msgspec.convert(
        {
            "version": SCHEMA_VERSION,
            "run": msgspec.to_builtins(run),
            "counts": dict(sorted(counts.items())),
            "findings": [finding.to_json() for finding in findings],
        },
        JsonReport,
    )
    # ASCII only, so that guest text stays harmless wherever the file is shown.
    return json.dumps(msgspec.to_builtins(report), indent=2, ensure_ascii=True) + "\n"


def json_schema() -> str:
    """Return the JSON schema of the report, as it is published."""
    schema = msgspec.json.schema(JsonReport)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json_schema())
