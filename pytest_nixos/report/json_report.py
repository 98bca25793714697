"""The JSON report: everything, for programs."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

from pytest_nixos.findings import Finding
from pytest_nixos.report.facts import RunFacts

__all__ = ["SCHEMA_VERSION", "write_json"]

SCHEMA_VERSION = 1


def write_json(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write findings and run facts as one JSON document, findings sorted worst first.

    ``version`` grows when a field changes its meaning or goes away; new fields do not change it.
    """
    ordered = sorted(findings, key=lambda f: (not f.failed, -f.severity, f.host, f.control))
    document = {
        "version": SCHEMA_VERSION,
        "run": dataclasses.asdict(run),
        "counts": dict(sorted(Counter(f.outcome.value for f in findings).items())),
        "findings": [finding.to_json() for finding in ordered],
    }
    return json.dumps(document, indent=2, ensure_ascii=True, default=str) + "\n"
