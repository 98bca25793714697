"""``pytest-nixos diff``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.cli.main import main
from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.report import RunFacts
from pytest_nixos.report.formats.json_report import write_json
from tests.unit.report.comparing.test_compare import finding


def report(path: Path, findings: Sequence[Finding], host: str = "web", **declared: Any) -> str:
    facts = {"ref": f".#{host}", "phases_s": {"boot": 5.0 + len(findings)}, "declared": declared}
    run = RunFacts(
        plugin_version="0", started_at="t", duration_s=1, hosts={host: facts}, fail_on="LOW"
    )
    path.write_text(write_json(findings, run))
    return str(path)


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    before = report(tmp_path / "a.json", [finding("OLD")], units=["a", "b"], ports=["tcp 22"])
    failed = finding("EVIL", reason="\x1b[31m<script>alert(1)</script>")
    mended = finding("OLD", Outcome.PASSED)
    after = report(tmp_path / "b.json", [failed, mended], units=["a", "c"], ports=["tcp 22"])
    return before, after


def test_text_tells_what_is_new_and_what_went_away(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *two]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "new: 1" and "went away: 1" in said
    assert "units of web:\n  - b\n  + c" in said and "ports" not in said
    assert "6.0 s -> 7.0 s (+1.0 s)" in said
    assert "\x1b" not in said


def test_nothing_worse_is_success(two: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", two[0], two[0]]) == 0
    assert "still failed as before: 1" in capsys.readouterr().out


def test_json_and_html_carry_the_same(
    two: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["diff", *two, "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert [f["control"] for f in found["new"]] == ["EVIL"]
    assert [f["control"] for f in found["mended"]] == ["OLD"]
    main(["diff", *two, "--format", "html"])
    page = capsys.readouterr().out
    assert "EVIL" in page and "<script>" not in page and "default-src 'none'" in page


def test_two_hosts_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = report(tmp_path / "a.json", [finding("A")])
    other = report(tmp_path / "b.json", [finding("A", host="db")], host="db")
    assert main(["diff", one, other]) == 4
    assert "no host in common" in capsys.readouterr().err
    assert main(["diff", f"{one}#web", f"{other}#db"]) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "is no report of pytest-nixos"),
        ('{"version": 2, "run": {}, "findings": []}', "of version 2, expected 1"),
        ('{"version": 1, "run": {"hosts": {}}, "findings": [{}]}', "is damaged"),
        ('{"version": 1, "run": {}, "findings": []}', "is damaged"),
        ('{"version": 1, "run": {"hosts": 3}, "findings": []}', "is damaged"),
        (None, "cannot be read"),
    ],
)
def test_bad_report_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    bad = tmp_path / "bad.json"
    if text is not None:
        bad.write_text(text)
    assert main(["diff", str(bad), str(bad)]) == 4
    error = capsys.readouterr().err
    assert said in error and "remedy:" in error and "Traceback" not in error
