"""Findings for spreadsheets."""

from __future__ import annotations

import csv
import io

import pytest

from pytest_nixos.report import RunFacts
from pytest_nixos.report.formats.csv_report import write_csv
from tests.unit.report.comparing.test_compare import finding

RUN = RunFacts(plugin_version="0", started_at="t", duration_s=1, hosts={}, fail_on="LOW")


def rows(*findings: object) -> list[dict[str, str]]:
    text = write_csv(findings, RUN)  # type: ignore[arg-type]
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_each_finding_is_one_line() -> None:
    found = rows(finding(reason='a "b", c\nd', observed=["x"], references={"stig": ("V-1",)}))
    assert len(found) == 1
    assert found[0]["reason"] == 'a "b", c d'
    assert found[0]["observed"] == '["x"]'
    assert (found[0]["references"], found[0]["outcome"]) == ("stig V-1", "failed")


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\t=1"])
def test_guest_text_is_no_formula(text: str) -> None:
    (row,) = rows(finding(reason=text, observed=text, host=text))
    cells = (row["reason"], row["observed"], row["host"])
    assert not [c for c in cells if c.startswith(("=", "+", "-", "@", "\t"))]


def test_guest_text_is_printable() -> None:
    assert "\x1b" not in write_csv([finding(reason="\x1b[31m\u202e")], RUN)
