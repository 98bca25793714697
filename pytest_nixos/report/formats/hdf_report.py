"""The HDF report: what MITRE's Heimdall reads (the exec-json of InSpec)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.text import printable, printable_lines
from pytest_nixos.report.facts import RunFacts
from pytest_nixos.report.formats.ckl_report import NOT_REVIEWED

__all__ = ["write_hdf"]

Json = Any
# InSpec's impact, as Heimdall maps it to a severity.
_IMPACTS = {
    Severity.CRITICAL: 0.9,
    Severity.HIGH: 0.7,
    Severity.MEDIUM: 0.5,
    Severity.LOW: 0.3,
    Severity.STYLE: 0.1,
}
_STATUSES = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "failed",
    Outcome.WAIVED: "failed",
    Outcome.NOT_APPLICABLE: "skipped",
    Outcome.ERROR: "error",
}


def write_hdf(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write findings as one profile; a control has a result for each host that it was judged on.

    A waived control carries its waiver, so that Heimdall shows it apart.
    """
    by_control: dict[str, list[Finding]] = {}
    for finding in findings:
        by_control.setdefault(finding.control, []).append(finding)
    controls = [_control(group, run) for group in by_control.values()]
    digest = hashlib.sha256(json.dumps(sorted(by_control)).encode()).hexdigest()
    hosts = list(run.hosts)
    releases = {str(facts.get("version") or "unknown") for facts in run.hosts.values()}
    document = {
        "platform": {
            "name": "nixos",
            "release": ", ".join(sorted(releases)) or "unknown",
            "target_id": printable(", ".join(hosts)),
        },
        "version": run.plugin_version,
        "statistics": {"duration": run.duration_s},
        "profiles": [
            {
                "name": "pytest-nixos",
                "title": "NixOS hosts as their flake declares them",
                "version": run.plugin_version,
                "sha256": digest,
                "supports": [{"platform-name": "nixos"}],
                "attributes": [],
                "groups": _groups(findings),
                "controls": controls,
                "status": "loaded",
            }
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=True) + "\n"


def _groups(findings: Sequence[Finding]) -> list[Json]:
    suites: dict[str, dict[str, None]] = {}
    for finding in findings:
        suites.setdefault(finding.suite, {})[finding.control] = None
    return [
        {"id": suite, "title": suite, "controls": list(controls)}
        for suite, controls in sorted(suites.items())
    ]


def _control(group: Sequence[Finding], run: RunFacts) -> Json:
    first = group[0]
    none_applies = all(
        f.outcome is Outcome.NOT_APPLICABLE and not f.reason.startswith(NOT_REVIEWED) for f in group
    )
    place = next((p for f in group for p in f.places if p.own), None)
    control: dict[str, Json] = {
        "id": first.control,
        "title": first.title,
        "desc": first.threat or first.title,
        "descriptions": [
            {"label": "fix", "data": printable_lines(first.remedy)},
            {"label": "check", "data": printable(first.by_hand)},
            {"label": "rationale", "data": printable(first.why or first.threat)},
        ],
        # Heimdall takes an impact of 0 for "not applicable", and what was skipped for "not reviewed".
        "impact": 0.0 if none_applies else _IMPACTS[first.severity],
        "refs": [],
        "tags": {
            "severity": first.severity.name.lower(),
            **{name: list(ids) for name, ids in sorted(first.references.items())},
        },
        "source_location": {}
        if place is None
        else {"ref": printable(place.file), "line": place.line or 1},
        "results": [_result(finding, run) for finding in group],
    }
    waived = next((f for f in group if f.outcome is Outcome.WAIVED), None)
    if waived is not None:
        control["waiver_data"] = {
            "justification": printable(waived.reason),
            "run": True,
            "skipped_due_to_waiver": False,
        }
    return control


def _result(finding: Finding, run: RunFacts) -> Json:
    status = _STATUSES[finding.outcome]
    result: dict[str, Json] = {
        "status": status,
        "code_desc": printable(f"{finding.host}: {finding.title}"),
        "run_time": finding.duration_s,
        "start_time": run.started_at,
    }
    if status == "skipped":
        result["skip_message"] = printable(finding.reason)
    elif status != "passed":
        result["message"] = printable(finding.why or finding.reason)
    return result
