"""The STIG viewer's checklist (CKL, schema 2.5) of one host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.local.text import printable, printable_lines
from pytest_nixos.report.facts import RunFacts

__all__ = ["NOT_REVIEWED", "write_ckl"]

_STIG = "stig"
_TITLE = "Anduril NixOS Security Technical Implementation Guide"
_STANDS_IN = "judged as"
_RELEASE = "Release: 2 Benchmark Date: see the STIG"
#: Not applicable since no machine can tell, or since another control stands in: nobody reviewed it.
NOT_REVIEWED = ("judged by hand", _STANDS_IN, "this run did not read")
_SEVERITIES = {
    Severity.CRITICAL: "high",
    Severity.HIGH: "high",
    Severity.MEDIUM: "medium",
    Severity.LOW: "low",
    Severity.STYLE: "low",
}


def write_ckl(findings: Sequence[Finding], run: RunFacts) -> str:
    """Write a checklist with a rule for each clause of the STIG that a control of the run refers to.

    A rule is open if one of its controls failed or is waived, and no finding only if one passed and
    all that apply were judged.

    :raises SettingsError: if the run has several hosts, or no control refers to the STIG: a
        checklist is about one host, and has rules.
    """
    if len(run.hosts) != 1:
        raise SettingsError(
            f"a checklist is about one host, and this run has {len(run.hosts)}",
            remedy="write one for each: --nixos-report 'ckl:{host}.ckl', or another format",
        )
    rules: dict[str, list[Finding]] = {}
    for finding in findings:
        for rule in finding.references.get(_STIG, ()):
            rules.setdefault(rule, []).append(finding)
    if not rules:
        raise SettingsError(
            "no control of this run refers to the STIG",
            remedy="choose a profile: --nixos-profile stig",
        )
    (host,) = run.hosts
    checklist = ET.Element("CHECKLIST")
    _asset(ET.SubElement(checklist, "ASSET"), host, run)
    stig = ET.SubElement(ET.SubElement(checklist, "STIGS"), "iSTIG")
    info = ET.SubElement(stig, "STIG_INFO")
    for name, data in (
        ("title", _TITLE),
        ("version", "1"),
        ("releaseinfo", _RELEASE),
        ("description", f"pytest-nixos {run.plugin_version}, {run.started_at}"),
    ):
        entry = ET.SubElement(info, "SI_DATA")
        ET.SubElement(entry, "SID_NAME").text = name
        ET.SubElement(entry, "SID_DATA").text = data
    for rule in sorted(rules):
        _vulnerability(ET.SubElement(stig, "VULN"), rule, rules[rule])
    ET.indent(checklist)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(checklist, encoding="unicode")}\n'


def status_of(findings: Sequence[Finding]) -> str:
    """Return the status of a rule, as the viewer names it."""
    outcomes = {finding.outcome for finding in findings}
    passed = Outcome.PASSED in outcomes
    # Of a control that stands in for another the rule has the verdict too.
    left = [reason for reason in NOT_REVIEWED if not passed or reason != _STANDS_IN]
    unreviewed = any(
        f.outcome is Outcome.NOT_APPLICABLE and f.reason.startswith(tuple(left)) for f in findings
    )
    if outcomes & {Outcome.FAILED, Outcome.WAIVED}:
        return "Open"
    if Outcome.ERROR in outcomes or unreviewed:
        return "Not_Reviewed"
    return "NotAFinding" if passed else "Not_Applicable"


def _asset(asset: ET.Element, host: str, run: RunFacts) -> None:
    facts: Mapping[str, object] = run.hosts[host]
    for name, text in (
        ("ROLE", "None"),
        ("ASSET_TYPE", "Computing"),
        ("HOST_NAME", host),
        ("HOST_IP", ""),
        ("HOST_MAC", ""),
        ("HOST_FQDN", ""),
        ("TARGET_COMMENT", f"NixOS {facts.get('version') or facts.get('release') or ''}"),
        ("TECH_AREA", "UNIX OS"),
        ("TARGET_KEY", ""),
        ("WEB_OR_DATABASE", "false"),
        ("WEB_DB_SITE", ""),
        ("WEB_DB_INSTANCE", ""),
    ):
        ET.SubElement(asset, name).text = printable(text)


def _vulnerability(entry: ET.Element, rule: str, findings: Sequence[Finding]) -> None:
    worst = max(findings, key=lambda f: (f.failed, f.severity))
    for attribute, text in (
        ("Vuln_Num", rule),
        ("Severity", _SEVERITIES[worst.severity]),
        ("Rule_Title", "; ".join(dict.fromkeys(f.title for f in findings))),
        ("Vuln_Discuss", worst.threat),
        ("Check_Content", worst.by_hand),
        ("Fix_Text", worst.remedy),
    ):
        data = ET.SubElement(entry, "STIG_DATA")
        ET.SubElement(data, "VULN_ATTRIBUTE").text = attribute
        ET.SubElement(data, "ATTRIBUTE_DATA").text = printable_lines(text)
    details = [
        f"{f.control}: {f.outcome.value}: {f.why or f.reason}".rstrip(": ") for f in findings
    ]
    waived = [f"{f.control}: {f.reason}" for f in findings if f.outcome is Outcome.WAIVED]
    for name, text in (
        ("STATUS", status_of(findings)),
        ("FINDING_DETAILS", printable_lines("\n".join(details))),
        ("COMMENTS", printable_lines("\n".join(waived))),
        ("SEVERITY_OVERRIDE", ""),
        ("SEVERITY_JUSTIFICATION", ""),
    ):
        ET.SubElement(entry, name).text = text
