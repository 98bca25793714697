"""The JSON report: everything, for programs. Its published schema is made from the model in this
file.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from pytest_nixos.findings import Finding
from pytest_nixos.report.facts import RunFacts

__all__ = ["SCHEMA_VERSION", "JsonReport", "json_schema", "published_schema", "write_json"]

SCHEMA_VERSION = 1

OutcomeName = Literal["passed", "failed", "not-applicable", "waived", "error"]
# Values of JudgedOn.
JudgedOnName = Literal["machine", "config", "both", "outside", "outside and machine", "nothing"]
SeverityName = Literal["STYLE", "LOW", "MEDIUM", "HIGH", "CRITICAL"]


class JournalLine(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the machine's journal; `priority` as in syslog, 0 to 7."""

    time_s: float
    unit: str
    source: str
    priority: int
    message: str


class JsonPlace(msgspec.Struct, frozen=True, kw_only=True):
    """Where an option that decides a finding gets its value.

    `file` is relative to the flake's root, or to that of the input that `source` names; it is empty
    where no file is known. `how`: the option is set there, its default is declared there, it is not
    set and has none, the finding is about the text there, or the host itself is defined there.
    """

    option: str
    how: Literal["set", "default", "unset", "text", "host"]
    file: str
    line: int | None
    column: int | None
    source: str
    priority: str


class JsonFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of one control on one host.

    `judged_on` says whose word the verdict rests on: ``machine`` (the guest says it about itself,
    and root of the guest can make it up), ``config`` (evaluated or built, without a guest),
    ``both``, ``outside`` (looked at from outside the guest), ``outside and machine``, or
    ``nothing`` where it was not judged. `expected` and `observed` have the shape that the control gives them. `caused_by` names the
    controls of the same host whose findings explain this one (``machine``: the host's own failure),
    and `explains` the other way round; both rest on the subjects (``unit:sshd.service``) that
    findings blame and rest on. `pressure` is that of the machine that ran pytest while it was judged:
    shares of `span_s` in which processes waited for a processor, and that a hypervisor took.
    """

    control: str
    title: str
    suite: str
    host: str
    backend: str
    severity: SeverityName
    outcome: OutcomeName
    judged_on: JudgedOnName
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
    pressure: dict[str, float | None]
    places: list[JsonPlace]
    why: str = ""
    by_hand: str = ""
    page: str = ""
    against_baseline: Literal["", "new", "worse", "known"] = ""


class JsonChange(msgspec.Struct, frozen=True, kw_only=True):
    """Options that differ in the machine for one reason."""

    what: str
    why: str
    options: list[str]


class JsonHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host of the run; where it did not evaluate, only the first three.

    `failure` is what kept the host from being judged, `why` the same in a few words.
    `changed_options` maps an option to what the host declares and what the machine had; `changes`
    are the same options in at most ten groups, each with the reason.
    `circumstances` are the machine's that ran pytest: its `pace`, the `pressure` on it, and what
    the guest's kernel was told for it; and `secrets`: how many of the host's have test values.
    `folder` is the flake's below the root of its source tree. `declared`: units, open ports, users,
    kernel parameters and toplevel, for comparisons.
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
    changes: list[JsonChange] = []
    circumstances: dict[str, Any] = {}
    declared: dict[str, Any] = {}
    folder: str = ""


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
    baseline: dict[str, Any] = {}


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
    return json.dumps(_finite(msgspec.to_builtins(report)), indent=2, ensure_ascii=True) + "\n"


def _finite(value: Any) -> Any:
    """Write as text what JSON has no number for: Python reads NaN and infinities of a guest's JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def json_schema() -> str:
    """Return the JSON schema of the report, as it is published."""
    return published_schema(msgspec.json.schema(JsonReport))


def published_schema(schema: dict[str, Any]) -> str:
    """Return the text of a schema that msgspec made, the same for each version of msgspec and Python.

    Versions differ in the indent of docstrings, in the order of alternatives, and in whether they
    say that the keys of a mapping and the items of a set are limited, and that a default is empty:
    that is left out.
    """
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(_same_for_all_versions(whole), indent=2) + "\n"


def _same_for_all_versions(part: Any) -> Any:
    if isinstance(part, list):
        return [_same_for_all_versions(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {
        key: _same_for_all_versions(value)
        for key, value in part.items()
        if key not in ("propertyNames", "uniqueItems") and (key, value) != ("default", {})
    }
    if isinstance(kept.get("description"), str):
        kept["description"] = inspect.cleandoc(kept["description"])
    if "anyOf" in kept:
        kept["anyOf"].sort(key=lambda item: (item == {"type": "null"}, json.dumps(item)))
    return kept


if __name__ == "__main__":
    sys.stdout.write(json_schema())
