"""The terminal summary: counts by severity, then what to mend first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.text import printable

__all__ = ["failure_lines", "summary_lines"]

_MAX_VALUE = 400
_ATTACHMENT_LINES = 15
_JOURNAL_LINES = 8
_WARNING = 4
_WORDS = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "failed",
    Outcome.NOT_APPLICABLE: "not applicable",
    Outcome.WAIVED: "waived",
    Outcome.ERROR: "not judged (error)",
}


def summary_lines(findings: Sequence[Finding], *, fail_on: Severity) -> list[str]:
    """Write the summary: one line of counts a host, then a prioritised plan.

    The plan lists every violated control once per host, the most severe first, each with what was
    expected and observed, the threat and the remedy. Guest text is made printable.
    """
    lines: list[str] = []
    for host, of_host in groupby(sorted(findings, key=lambda f: f.host), key=lambda f: f.host):
        lines.append(f"{printable(host)}: {_counts(list(of_host))}")
    failed = sorted(
        (f for f in findings if f.failed), key=lambda f: (-f.severity, f.host, f.control)
    )
    if failed:
        lines += ["", f"What to mend first ({_by_severity(failed)}):"]
        for number, finding in enumerate(failed, 1):
            lines += _plan_entry(number, finding, fail_on=fail_on)
    return lines


def failure_lines(finding: Finding) -> list[str]:
    """Write one violated control for the place where pytest shows a failure, evidence tails included."""
    lines = [
        f"{finding.severity.name} {finding.control}: {finding.title}",
        printable(finding.reason),
    ]
    lines += [f"expected: {_value(finding.expected)}", f"observed: {_value(finding.observed)}"]
    for name, text in finding.attachments.items():
        tail = text.splitlines()[-_ATTACHMENT_LINES:]
        lines += [f"{printable(name)}:", *(f"  | {printable(line)}" for line in tail)]
    return lines + _journal_lines(finding)


def _journal_lines(finding: Finding) -> list[str]:
    """Show the last warnings and errors; the report holds the rest."""
    told = [e for e in finding.journal if e["priority"] <= _WARNING][-_JOURNAL_LINES:]
    if not told:
        return []
    shown = (printable(f"{e['unit'] or e['source']}: {e['message']}") for e in told)
    return [
        f"warnings of the journal meanwhile ({len(finding.journal)} entries in the report):",
        *(f"  | {line[:_MAX_VALUE]}" for line in shown),
    ]


def _plan_entry(number: int, finding: Finding, *, fail_on: Severity) -> list[str]:
    below = " (below --nixos-fail-on)" if finding.severity < fail_on else ""
    where = f"{finding.severity.name} {finding.control} [{printable(finding.host)}]"
    lines = [
        f"{number:>3}. {where} {finding.title}{below}",
        f"     {printable(finding.reason)}" if finding.reason else "",
    ]
    if finding.outcome is Outcome.FAILED and finding.expected is not None:
        lines.append(f"     expected: {_value(finding.expected)}")
    if finding.outcome is Outcome.FAILED and finding.observed is not None:
        lines.append(f"     observed: {_value(finding.observed)}")
    if finding.threat:
        lines.append(f"     risk:     {finding.threat}")
    if finding.remedy:
        lines += [
            f"     remedy:   {line}" if i == 0 else f"               {line}"
            for i, line in enumerate(finding.remedy.strip().splitlines())
        ]
    return [line for line in lines if line]


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = printable(text.replace("\n", " "))
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}... ({len(text)} characters)"


def _counts(findings: Sequence[Finding]) -> str:
    by_outcome = Counter(f.outcome for f in findings)
    return ", ".join(
        f"{by_outcome[outcome]} {word}" for outcome, word in _WORDS.items() if by_outcome[outcome]
    )


def _by_severity(findings: Sequence[Finding]) -> str:
    by_severity = Counter(f.severity for f in findings)
    return ", ".join(
        f"{by_severity[severity]} {severity.name}"
        for severity in sorted(Severity, reverse=True)
        if by_severity[severity]
    )
