"""The CSV report (RFC 4180): one line a finding, for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from pytest_nixos.findings import Finding
from pytest_nixos.local.text import one_line
from pytest_nixos.report.facts import RunFacts

__all__ = ["write_csv"]

_COLUMNS = (
    "host",
    "control",
    "title",
    "suite",
    "severity",
    "outcome",
    "reason",
    "expected",
    "observed",
    "judged_on",
    "where",
    "remedy",
    "by_hand",
    "caused_by",
    "references",
    "started_at",
)
# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write a header and a line for each finding; cells of several values are parted by ``; ``.

    What a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for finding in findings:
        writer.writerow([_cell(value) for value in _row(finding, run)])
    return text.getvalue()


def _row(finding: Finding, run: RunFacts) -> tuple[object, ...]:
    references = [f"{name} {one}" for name, ids in finding.references.items() for one in ids]
    return (
        finding.host,
        finding.control,
        finding.title,
        finding.suite,
        finding.severity.name,
        finding.outcome.value,
        finding.reason,
        finding.expected,
        finding.observed,
        finding.judged_on,
        "; ".join(place.words for place in finding.places),
        finding.remedy,
        finding.by_hand,
        "; ".join(finding.caused_by),
        "; ".join(references),
        run.started_at,
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = one_line(text)
    return f"'{text}" if text.startswith(_FORMULA) else text
