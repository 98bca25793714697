"""XCCDF results; against NIST's schema where Debian's openscap-common is installed, or
``PYTEST_NIXOS_XCCDF_SCHEMA`` names it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.report import RunFacts
from pytest_nixos.report.formats.xccdf_report import write_xccdf
from tests.unit.report.comparing.test_compare import finding

DEBIANS_SCHEMA = "/usr/share/openscap/schemas/xccdf/1.2/xccdf_1.2.xsd"
NS = {"x": "http://checklists.nist.gov/xccdf/1.2"}
RUN = RunFacts(
    plugin_version="0.1",
    started_at="2026-11-21T01:00:00+00:00",
    duration_s=1.5,
    hosts={"web": {"version": "24.05.1", "backend": "vm"}, "/srv/infra#db": {}},
    fail_on="LOW",
)
PASSED, FAILED, NA = Outcome.PASSED, Outcome.FAILED, Outcome.NOT_APPLICABLE
EVERY = (
    finding(
        reason="<evil>\x1b[31m",
        severity=Severity.HIGH,
        references={"stig": ("V-1", "V-2")},
        remedy="a = 1;",
    ),
    finding("B-1", PASSED),
    finding("B-1", PASSED, host="/srv/infra#db"),
    finding("C-1", Outcome.WAIVED, reason="waived by me"),
    finding("D-1", Outcome.ERROR, reason="not judged"),
    finding("E-1", NA, reason="judged by hand: ask"),
    finding("F-1", NA, reason="the host runs no sshd"),
)


def document(findings: Sequence[Finding]) -> ET.Element:
    return ET.fromstring(write_xccdf(findings, RUN))


def results(findings: Sequence[Finding], host: int = 0) -> dict[str, str]:
    of_host = document(findings).findall("x:TestResult", NS)[host]
    return {
        entry.attrib["idref"].rpartition("_")[2]: str(entry.findtext("x:result", None, NS))
        for entry in of_host.findall("x:rule-result", NS)
    }


def test_each_host_has_its_results() -> None:
    assert results(EVERY) == {
        "A-1": "fail",
        "B-1": "pass",
        "C-1": "fail",
        "D-1": "error",
        "E-1": "notchecked",
        "F-1": "notapplicable",
    }
    assert results(EVERY, host=1) == {"B-1": "pass"}
    targets = [
        t.findtext("x:target", None, NS) for t in document(EVERY).findall("x:TestResult", NS)
    ]
    assert targets == ["web", "/srv/infra#db"]


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ((PASSED, FAILED), "fail"),
        ((FAILED, PASSED), "fail"),
        ((PASSED, Outcome.ERROR), "error"),
        ((PASSED, NA), "pass"),
        ((PASSED, Outcome.WAIVED), "fail"),
    ],
)
def test_a_rule_passes_only_if_nothing_of_it_is_wrong(
    outcomes: tuple[Outcome, ...], word: str
) -> None:
    assert results([finding("A-1", o, node_id=str(n)) for n, o in enumerate(outcomes)]) == {
        "A-1": word
    }


def test_the_score_is_of_what_was_judged() -> None:
    score = document(EVERY).find("x:TestResult/x:score", NS)
    assert score is not None
    assert (score.text, score.attrib["maximum"]) == ("1.0", "4.0")


def test_rules_name_their_clauses_and_hostile_text_is_inert() -> None:
    rule = document(EVERY).find("x:Rule", NS)
    assert rule is not None
    assert [ident.text for ident in rule.findall("x:ident", NS)] == ["V-1", "V-2"]
    assert "\x1b" not in write_xccdf(EVERY, RUN)


def test_it_fits_the_schema_of_nist() -> None:
    path = os.environ.get("PYTEST_NIXOS_XCCDF_SCHEMA", DEBIANS_SCHEMA)
    if not Path(path).exists():
        pytest.skip(
            "no xccdf_1.2.xsd: apt-get install openscap-common, or PYTEST_NIXOS_XCCDF_SCHEMA"
        )
    xmlschema = pytest.importorskip("xmlschema", reason="xmlschema is not installed")
    schema = xmlschema.XMLSchema(path)
    for findings in (EVERY, ()):
        schema.validate(write_xccdf(findings, RUN))
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        schema.validate(write_xccdf(EVERY, RUN).replace(">fail<", ">failed<"))
