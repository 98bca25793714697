"""``--nixos-baseline``: only what is new or worse fails a run."""

from __future__ import annotations

import json

import pytest

from tests.plugin.field import Field

WEB = ("--nixos-flake", ".#web", "--nixos-suite", "none", "--nixos-report", "json:now.json")


def judge(field: Field, failing: dict[str, list[str]], *more: str) -> pytest.RunResult:
    tests = "".join(
        f'\n@pytest.mark.nixos_control("{control}")\n'
        f"def test_{control.replace('-', '_')}(nixos_machine, nixos_evidence):\n"
        f"    assert not nixos_evidence.observe({observed!r}), 'bad'\n"
        for control, observed in failing.items()
    )
    (field.pytester.path / "test_it.py").write_text(f"import pytest\n{tests}")
    return field.run(*WEB, *more)


@pytest.fixture
def before(field: Field) -> Field:
    judge(field, {"BOOT-001": ["x"], "BOOT-004": ["y"], "BOOT-002": []})
    (field.pytester.path / "now.json").rename(field.pytester.path / "before.json")
    return field


BASELINE = ("--nixos-baseline", "before.json")


def test_what_failed_alike_does_not_fail_the_run(before: Field) -> None:
    result = judge(before, {"BOOT-001": ["x"], "BOOT-004": [], "BOOT-002": []}, *BASELINE)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=2, xfailed=1)
    result.stdout.fnmatch_lines(["*went away: 1", "*BOOT-004*", "*still failed as before: 1"])
    now = json.loads((before.pytester.path / "now.json").read_text())
    assert {f["control"]: f["against_baseline"] for f in now["findings"]} == {
        "BOOT-001": "known",
        "BOOT-002": "",
        "BOOT-004": "",
    }
    assert [c["control"] for c in now["run"]["baseline"]["mended"]] == ["BOOT-004"]


@pytest.mark.parametrize(
    ("failing", "told"),
    [({"BOOT-002": ["z"]}, "new: 1"), ({"BOOT-001": ["x", "w"]}, "worse: 1")],
)
def test_what_is_new_or_worse_fails_it(
    before: Field, failing: dict[str, list[str]], told: str
) -> None:
    result = judge(before, failing, *BASELINE)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{told}"])


def test_baseline_of_another_host_is_refused_before_anything_is_built(before: Field) -> None:
    path = before.pytester.path / "before.json"
    path.write_text(path.read_text().replace('"web"', '"other"'))
    lines = len(before.machine_log)
    result = judge(before, {"BOOT-001": ["x"]}, *BASELINE)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--nixos-baseline *before.json: is of other hosts: other*"])
    assert len(before.machine_log) == lines


def test_no_report_is_refused_before_anything_is_built(field: Field) -> None:
    result = judge(field, {"BOOT-001": ["x"]}, "--nixos-baseline", "nothing.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--nixos-baseline *nothing.json: cannot be read*", "*remedy:*"])
    assert field.machine_log == []


def test_two_reports_in_one_file_are_refused(field: Field) -> None:
    result = judge(field, {"BOOT-001": ["x"]}, "--nixos-report", "html:./now.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--nixos-report html:*now.json: json:* and html:* go to the same file*"]
    )
    assert field.machine_log == []
