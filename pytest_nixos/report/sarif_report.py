"""The SARIF report: what code scanning services read (OASIS SARIF 2.1.0)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.text import printable
from pytest_nixos.report.facts import RunFacts

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

    A finding is about a host, not about a line: its place is the flake's ``flake.nix``, its logical
    place the host.
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
                "results": [_result(finding, index[finding.control]) for finding in findings],
            }
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=True) + "\n"


def _rule(finding: Finding) -> dict[str, Any]:
    tags = [f"{name}:{one}" for name, ids in sorted(finding.references.items()) for one in ids]
    return {
        "id": finding.control,
        "name": finding.control.replace("-", ""),
        "shortDescription": {"text": finding.title},
        "fullDescription": {"text": finding.threat or finding.title},
        "help": {"text": finding.remedy or finding.title},
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {
            "tags": ["security", finding.suite, *tags],
            "security-severity": _SCORES[finding.severity],
        },
    }


def _result(finding: Finding, rule: int) -> dict[str, Any]:
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
                "physicalLocation": {"artifactLocation": {"uri": "flake.nix"}},
                "logicalLocations": [
                    {"name": printable(finding.host), "kind": "module"},
                ],
            }
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
