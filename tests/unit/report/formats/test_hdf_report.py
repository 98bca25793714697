"""What Heimdall reads; against its schema where ``PYTEST_NIXOS_HDF_SCHEMA`` names it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.place import How, Place
from pytest_nixos.report import RunFacts
from pytest_nixos.report.formats.hdf_report import write_hdf
from tests.unit.report.comparing.test_compare import finding

RUN = RunFacts(
    plugin_version="0.1",
    started_at="2026-11-21T01:00:00+00:00",
    duration_s=1.5,
    hosts={"web": {"version": "24.05.1"}, "db": {"version": "24.05.1"}},
    fail_on="LOW",
)


def controls(*findings: Finding) -> dict[str, dict[str, Any]]:
    document = json.loads(write_hdf(findings, RUN))
    assert {"platform", "profiles", "statistics", "version"} <= set(document)
    (profile,) = document["profiles"]
    assert {"name", "sha256", "supports", "attributes", "groups", "controls"} <= set(profile)
    found = {control["id"]: control for control in profile["controls"]}
    for control in found.values():
        assert {"id", "impact", "refs", "tags", "source_location", "results"} <= set(control)
        assert 0 <= control["impact"] <= 1
    grouped = [name for group in profile["groups"] for name in group["controls"]]
    assert sorted(grouped) == sorted(found)
    return found


def test_control_has_a_result_for_each_host() -> None:
    place = Place(option="a", how=How.SET, file="web.nix", line=3)
    found = controls(
        finding(places=(place,), severity=Severity.HIGH, reason="bad"),
        finding(host="db", outcome=Outcome.PASSED),
        finding("B-1", Outcome.NOT_APPLICABLE, reason="no zram"),
        finding("C-1", Outcome.ERROR),
    )
    first = found["A-1"]
    assert [r["status"] for r in first["results"]] == ["failed", "passed"]
    assert (first["impact"], first["source_location"]) == (0.7, {"ref": "web.nix", "line": 3})
    assert first["results"][0]["message"] == "bad"
    assert (found["B-1"]["impact"], found["B-1"]["results"][0]["skip_message"]) == (0, "no zram")
    assert found["C-1"]["results"][0]["status"] == "error"


def test_what_a_person_has_to_judge_is_not_told_as_not_applicable() -> None:
    """Heimdall takes what was skipped with an impact for "not reviewed"."""
    by_hand = controls(finding(outcome=Outcome.NOT_APPLICABLE, reason="judged by hand: ask"))["A-1"]
    assert by_hand["impact"] > 0 and by_hand["results"][0]["status"] == "skipped"


def test_waived_control_is_no_pass() -> None:
    waived = controls(finding(outcome=Outcome.WAIVED, reason="by ops"))["A-1"]
    assert waived["results"][0]["status"] == "failed"
    assert waived["waiver_data"]["justification"] == "by ops"


def test_guest_text_is_printable() -> None:
    assert "\\u001b" not in write_hdf([finding(reason="\x1b[31m")], RUN)


@pytest.mark.skipif(
    "PYTEST_NIXOS_HDF_SCHEMA" not in os.environ, reason="PYTEST_NIXOS_HDF_SCHEMA names no schema"
)
def test_schema_holds() -> None:
    schema = json.loads(Path(os.environ["PYTEST_NIXOS_HDF_SCHEMA"]).read_text())
    every = [finding(f"A-{n}", outcome) for n, outcome in enumerate(Outcome)]
    jsonschema.validate(json.loads(write_hdf(every, RUN)), schema)
