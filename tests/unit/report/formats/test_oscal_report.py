"""NIST's assessment results; validated by compliance-trestle where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.place import How, Place
from pytest_nixos.report import RunFacts
from pytest_nixos.report.formats.oscal_report import write_oscal
from tests.unit.report.comparing.test_compare import finding

RUN = RunFacts(
    plugin_version="0.1",
    started_at="2026-11-21T01:00:00+00:00",
    duration_s=1.5,
    hosts={"web": {"release": "24.05"}},
    fail_on="LOW",
)
FINDINGS = (
    finding(
        reason="is yes\x1b[31m",
        remedy="a = 1;\nb = 2;",
        observed=[1],
        references={"nist": ("AC-2 (4)",), "stig": ("V-1",)},
        places=(Place(option="a", how=How.SET, file="web.nix", line=3),),
    ),
    finding("B-1", Outcome.PASSED),
    finding("C-1", Outcome.NOT_APPLICABLE, reason="no zram"),
    finding("D-1", Outcome.ERROR, reason=""),
    finding("E-1", Outcome.WAIVED, reason="by ops"),
    finding("F-1", host="not in run.hosts"),
)


def result(findings: tuple[Finding, ...] = FINDINGS) -> dict[str, Any]:
    document = json.loads(write_oscal(findings, RUN))
    found: dict[str, Any]
    (found,) = document["assessment-results"]["results"]
    return found


def test_only_what_passed_is_satisfied() -> None:
    states = {
        f["target"]["target-id"]: (f["target"]["status"]["state"], f["target"]["status"]["reason"])
        for f in result()["findings"]
    }
    assert states == {
        "a-1": ("not-satisfied", "fail"),
        "b-1": ("satisfied", "pass"),
        "d-1": ("not-satisfied", "other"),
        "e-1": ("not-satisfied", "other"),
        "f-1": ("not-satisfied", "fail"),
    }


def test_every_finding_rests_on_an_observation_with_evidence() -> None:
    found = result()
    observations = {o["uuid"]: o for o in found["observations"]}
    assert len(observations) == len(FINDINGS)
    for each in found["findings"]:
        (related,) = each["related-observations"]
        assert related["observation-uuid"] in observations
    first = found["observations"][0]
    assert {p["name"]: p["value"] for p in first["props"]}["where"] == "web.nix:3 sets a"
    assert len(first["relevant-evidence"][0]["props"][0]["value"]) == 64
    assert "\\u001b" not in json.dumps(found)


def test_the_same_run_gives_the_same_document() -> None:
    assert write_oscal(FINDINGS, RUN) == write_oscal(FINDINGS, RUN)
    more = result((*FINDINGS[:1], finding("A-1", observed=[2], node_id="other")))
    assert (
        more["observations"][0]["relevant-evidence"] != more["observations"][1]["relevant-evidence"]
    )


@pytest.mark.parametrize("findings", [FINDINGS, ()])
def test_trestle_reads_it(tmp_path: Path, findings: tuple[Finding, ...]) -> None:
    oscal = pytest.importorskip("trestle.oscal.assessment_results")
    path = tmp_path / "results.json"
    path.write_text(write_oscal(findings, RUN))
    read = oscal.AssessmentResults.oscal_read(path)
    assert read is not None and len(read.results) == 1
