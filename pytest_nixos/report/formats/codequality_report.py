"""GitLab's code quality report: findings at lines of a merge request.

https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from pytest_nixos.findings import Finding, Severity
from pytest_nixos.local.text import one_line
from pytest_nixos.report.facts import RunFacts

__all__ = ["write_codequality"]

_SEVERITIES = {
    Severity.CRITICAL: "blocker",
    Severity.HIGH: "critical",
    Severity.MEDIUM: "major",
    Severity.LOW: "minor",
    Severity.STYLE: "info",
}


def write_codequality(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write an entry for each finding that failed, at the line of the flake that decides it, else
    at ``flake.nix``.
    """
    entries = [_entry(finding, run) for finding in findings if finding.failed]
    return json.dumps(entries, indent=2, ensure_ascii=True) + "\n"


def _entry(finding: Finding, run: RunFacts) -> dict[str, object]:
    place = next((place for place in finding.places if place.own), None)
    folder = str(run.hosts.get(finding.host, {}).get("folder") or "")
    file = place.file if place is not None else "flake.nix"
    line = place.line if place is not None and place.line is not None else 1
    what = f"{finding.host}: {finding.title}: {finding.reason}"
    return {
        "description": one_line(what),
        "check_name": finding.control,
        # Of what stays when the text or its line changes, so that GitLab tells new from known.
        "fingerprint": hashlib.sha256(f"{finding.host}/{finding.control}".encode()).hexdigest(),
        "severity": _SEVERITIES[finding.severity],
        "location": {
            "path": "/".join(part for part in (folder, file) if part),
            "lines": {"begin": line},
        },
    }
