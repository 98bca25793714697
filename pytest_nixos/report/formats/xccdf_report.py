"""XCCDF 1.2 (NIST IR 7275r4): the run's controls as a benchmark, with a test result for each host."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.text import printable, printable_lines
from pytest_nixos.report.facts import RunFacts
from pytest_nixos.report.formats.ckl_report import NOT_REVIEWED

__all__ = ["write_xccdf"]

_NAMESPACE = "http://checklists.nist.gov/xccdf/1.2"
#: Of what this project names itself: standards and facts that no registry of XCCDF has.
_URN = "urn:pytest-nixos"
#: One point for each rule that holds, out of all that were judged.
_SCORING = "urn:xccdf:scoring:flat-unweighted"
_SEVERITIES = {
    Severity.CRITICAL: "high",
    Severity.HIGH: "high",
    Severity.MEDIUM: "medium",
    Severity.LOW: "low",
    Severity.STYLE: "info",
}
_NOT_AN_ID = re.compile(r"[^A-Za-z0-9.-]+")


def write_xccdf(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write findings as one benchmark: a rule for each control, a test result for each host.

    Where a control was judged several times on a host, its worst outcome is the rule's result. A waived
    control fails, and its message says the waiver; what people judge by hand is "notchecked".
    """
    benchmark = ET.Element(
        "Benchmark", {"xmlns": _NAMESPACE, "id": _id("benchmark", "hosts"), "xml:lang": "en"}
    )
    started = dt.datetime.fromisoformat(run.started_at)
    _add(benchmark, "status", "interim", date=started.date().isoformat())
    _add(benchmark, "title", "NixOS hosts as their flake declares them")
    _add(benchmark, "version", run.plugin_version)
    rules: dict[str, Finding] = {}
    for finding in findings:
        rules.setdefault(finding.control, finding)
    for finding in rules.values():
        _rule(benchmark, finding)
    for host in run.hosts:
        of_host = [finding for finding in findings if finding.host == host]
        _test_result(benchmark, host, of_host, run, started)
    ET.indent(benchmark)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(benchmark, encoding="unicode")}\n'


def _rule(benchmark: ET.Element, finding: Finding) -> None:
    rule = ET.SubElement(
        benchmark,
        "Rule",
        {
            "id": _id("rule", finding.control),
            "severity": _SEVERITIES[finding.severity],
            "selected": "true",
        },
    )
    _add(rule, "title", finding.title)
    _add(rule, "rationale", finding.threat)
    for standard, clauses in sorted(finding.references.items()):
        for clause in clauses:
            _add(rule, "ident", clause, system=f"{_URN}:standard:{standard}")
    if finding.remedy:
        _add(rule, "fixtext", finding.remedy)


def _test_result(
    benchmark: ET.Element,
    host: str,
    findings: Sequence[Finding],
    run: RunFacts,
    started: dt.datetime,
) -> None:
    ended = started + dt.timedelta(seconds=run.duration_s)
    result = ET.SubElement(
        benchmark,
        "TestResult",
        {
            "id": _id("testresult", host),
            "start-time": started.isoformat(),
            "end-time": ended.isoformat(),
            "test-system": f"pytest-nixos {run.plugin_version}",
        },
    )
    _add(result, "target", host)
    _facts(ET.SubElement(result, "target-facts"), run.hosts[host])
    by_control: dict[str, list[Finding]] = {}
    for finding in findings:
        by_control.setdefault(finding.control, []).append(finding)
    results = [_rule_result(result, group) for group in by_control.values()]
    judged = [word for word in results if word in ("pass", "fail", "error")]
    _add(
        result,
        "score",
        str(float(judged.count("pass"))),
        system=_SCORING,
        maximum=str(float(len(judged))),
    )


def _facts(facts: ET.Element, host: Mapping[str, object]) -> None:
    for name in ("version", "backend"):
        if text := host.get(name):
            _add(facts, "fact", str(text), name=f"{_URN}:fact:{name}", type="string")


def _rule_result(result: ET.Element, group: Sequence[Finding]) -> str:
    """Write the result of one rule on one host, and return its word."""
    word, told = _result_of(group)
    entry = ET.SubElement(
        result,
        "rule-result",
        {
            "idref": _id("rule", told.control),
            "severity": _SEVERITIES[max(finding.severity for finding in group)],
        },
    )
    _add(entry, "result", word)
    severity = "error" if word in ("fail", "error") else "info"
    for finding in group:
        if (text := finding.why or finding.reason) and finding.outcome is not Outcome.PASSED:
            _add(entry, "message", text, severity=severity)
    return word


def _result_of(group: Sequence[Finding]) -> tuple[str, Finding]:
    """Return the worst result of a control, and whose it is."""
    worst = max(group, key=lambda finding: _RANKS.index(_word(finding)))
    return _word(worst), worst


#: From what says least to what is worst: a rule passes only if nothing of it failed or went wrong.
_RANKS = ("notapplicable", "notchecked", "pass", "error", "fail")


def _word(finding: Finding) -> str:
    match finding.outcome:
        case Outcome.PASSED:
            return "pass"
        case Outcome.FAILED | Outcome.WAIVED:
            return "fail"
        case Outcome.ERROR:
            return "error"
        case Outcome.NOT_APPLICABLE:
            by_hand = finding.reason.startswith(NOT_REVIEWED)
            return "notchecked" if by_hand else "notapplicable"


def _add(parent: ET.Element, name: str, text: str, /, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = printable_lines(text)


def _id(kind: str, name: str) -> str:
    """Return an id as the standard wants it: ``xccdf_NAMESPACE_KIND_NAME``."""
    return f"xccdf_org.pytest-nixos_{kind}_{_NOT_AN_ID.sub('-', printable(name))}"
