"""The STIG viewer's checklist; against its schema where ``PYTEST_NIXOS_CKL_SCHEMA`` names it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from xml.etree import ElementTree as ET

import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.report import RunFacts
from pytest_nixos.report.formats.ckl_report import write_ckl
from tests.unit.report.comparing.test_compare import finding

HOSTS = {"web": {"version": "24.05.1"}}
RULE = {"stig": ("V-1",)}
PASSED, FAILED, NA = Outcome.PASSED, Outcome.FAILED, Outcome.NOT_APPLICABLE


def run(hosts: dict[str, dict[str, object]] | None = None) -> RunFacts:
    return RunFacts(
        plugin_version="0",
        started_at="t",
        duration_s=1,
        hosts=HOSTS if hosts is None else hosts,
        fail_on="LOW",
    )


def rules(findings: Sequence[Finding]) -> dict[str, str]:
    root = ET.fromstring(write_ckl(findings, run()))
    return {
        str(entry.findtext("STIG_DATA/ATTRIBUTE_DATA")): str(entry.findtext("STATUS"))
        for entry in root.iter("VULN")
    }


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([(PASSED, "")], "NotAFinding"),
        ([(PASSED, ""), (FAILED, "x")], "Open"),
        ([(PASSED, ""), (Outcome.WAIVED, "by ops")], "Open"),
        ([(PASSED, ""), (Outcome.ERROR, "gone")], "Not_Reviewed"),
        ([(NA, "judged by hand: ask")], "Not_Reviewed"),
        ([(NA, "judged by hand: ask"), (PASSED, "")], "Not_Reviewed"),
        ([(NA, "this run did not read the closure"), (PASSED, "")], "Not_Reviewed"),
        ([(NA, "judged as SSH-001"), (PASSED, "")], "NotAFinding"),
        ([(NA, "judged as SSH-001")], "Not_Reviewed"),
        ([(NA, "the host runs no sshd")], "Not_Applicable"),
        ([(NA, "the host runs no sshd"), (PASSED, "")], "NotAFinding"),
    ],
)
def test_rule_is_no_finding_only_where_all_that_applies_was_judged(
    outcomes: list[tuple[Outcome, str]], status: str
) -> None:
    found = [
        finding(f"A-{n}", outcome, reason=reason, references=RULE)
        for n, (outcome, reason) in enumerate(outcomes)
    ]
    assert rules(found) == {"V-1": status}


def test_guest_text_is_text() -> None:
    evil = finding(reason="</COMMENTS><b>\x1b\x00", references=RULE)
    root = ET.fromstring(write_ckl([evil], run()))
    assert "</COMMENTS><b>" in str(root.findtext(".//FINDING_DETAILS"))


@pytest.mark.parametrize("hosts", [{}, {"web": {}, "db": {}}])
def test_checklist_is_about_one_host(hosts: dict[str, dict[str, object]]) -> None:
    with pytest.raises(SettingsError, match="about one host"):
        write_ckl([finding(references=RULE)], run(hosts))


def test_checklist_has_rules() -> None:
    with pytest.raises(SettingsError, match="refers to the STIG"):
        write_ckl([finding()], run())


@pytest.mark.skipif(
    "PYTEST_NIXOS_CKL_SCHEMA" not in os.environ, reason="PYTEST_NIXOS_CKL_SCHEMA names no schema"
)
def test_schema_holds() -> None:
    xmlschema = pytest.importorskip("xmlschema")
    schema = xmlschema.XMLSchema(os.environ["PYTEST_NIXOS_CKL_SCHEMA"])
    schema.validate(write_ckl([finding(references=RULE, remedy="a = 1;\nb = 2;")], run()))
