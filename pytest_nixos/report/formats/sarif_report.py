"""The SARIF report: what code scanning services read (OASIS SARIF 2.1.0)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.text import printable
from pytest_nixos.place import Place
from pytest_nixos.report.facts import RunFacts
from pytest_nixos.standards.frameworks import frameworks

__all__ = ["write_sarif"]

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_LEVELS = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.STYLE: "note",
}
# GitHub shows ten tags of a rule, and refuses a file with more than twenty.
_MOST_TAGS = 10
# How GitHub ranks security findings: a CVSS-like number.
_SCORES = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.0",
    Severity.LOW: "2.0",
    Severity.STYLE: "0.0",
}
_KINDS = {
    Outcome.PASSED: "pass",
    Outcome.FAILED: "fail",
    Outcome.NOT_APPLICABLE: "notApplicable",
    Outcome.WAIVED: "fail",
    Outcome.ERROR: "open",
}


def write_sarif(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write findings as one SARIF log, each control a rule; waived ones carry a suppression.

    The place of a finding is the line of the flake that decides it, else ``flake.nix``; its logical
    place is the host.
    """
    rules = {finding.control: finding for finding in findings}
    index = {control: number for number, control in enumerate(rules)}
    document = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "pytest-nixos",
                        "version": run.plugin_version,
                        "rules": [_rule(finding) for finding in rules.values()],
                    }
                },
                "invocations": [
                    {
                        "startTimeUtc": run.started_at.replace("+00:00", "Z"),
                        "executionSuccessful": not any(
                            f.outcome is Outcome.ERROR for f in findings
                        ),
                    }
                ],
                "results": [_result(finding, index[finding.control], run) for finding in findings],
            }
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def _rule(finding: Finding) -> dict[str, Any]:
    # The rules of a standard say more of a control than what it is evidence for.
    standards = sorted(finding.references, key=lambda name: (name in frameworks(), name))
    tags = [f"{name}:{one}" for name in standards for one in finding.references[name]]
    return {
        "id": finding.control,
        "name": finding.control.replace("-", ""),
        "shortDescription": {"text": finding.title},
        "fullDescription": {"text": finding.threat or finding.title},
        "help": {"text": finding.remedy or finding.title},
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {
            "tags": ["security", finding.suite, *tags][:_MOST_TAGS],
            "references": {name: list(ids) for name, ids in sorted(finding.references.items())},
            "security-severity": _SCORES[finding.severity],
        },
    }


def _physical(place: Place | None, folder: str) -> dict[str, Any]:
    """Return a place below the root of the repository, which is what code scanning marks."""
    file = place.file if place is not None else "flake.nix"
    location: dict[str, Any] = {
        "artifactLocation": {"uri": quote("/".join(part for part in (folder, file) if part))}
    }
    if place is not None and place.line is not None:
        location["region"] = {"startLine": place.line} | (
            {"startColumn": place.column} if place.column is not None else {}
        )
    return location


def _result(finding: Finding, rule: int, run: RunFacts) -> dict[str, Any]:
    folder = str(run.hosts.get(finding.host, {}).get("folder") or "")
    places = [place for place in finding.places if place.own]
    what = f"{finding.host}: {finding.reason or finding.title}"
    kind = _KINDS[finding.outcome]
    result: dict[str, Any] = {
        "ruleId": finding.control,
        "ruleIndex": rule,
        "kind": kind,
        # Only what failed has a level, SARIF 3.27.10.
        "level": _LEVELS[finding.severity] if kind == "fail" else "none",
        "message": {"text": printable(what)},
        "locations": [
            {
                "physicalLocation": _physical(places[0] if places else None, folder),
                "logicalLocations": [
                    {"name": printable(finding.host), "kind": "module"},
                ],
            }
        ],
        "relatedLocations": [
            {
                "id": number,
                "physicalLocation": _physical(place, folder),
                "message": {"text": printable(place.words)},
            }
            for number, place in enumerate(places, 1)
        ],
        "partialFingerprints": {"nixosControl/v1": f"{finding.host}/{finding.control}"},
        "properties": {
            "judgedOn": finding.judged_on,
            "causedBy": list(finding.caused_by),
            "explains": list(finding.explains),
        },
    }
    if finding.outcome is Outcome.WAIVED:
        result["suppressions"] = [{"kind": "external", "justification": printable(finding.reason)}]
    return result
