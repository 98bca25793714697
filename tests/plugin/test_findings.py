"""Findings: reports, ledger, JUnit, waivers, --nixos-fail-on, --lf."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from pytest_nixos import findings
from tests.plugin.field import Field

_CHECKS = """
import pytest

@pytest.mark.nixos_control("BOOT-001")
def test_bad(nixos_machine, nixos_evidence):
    nixos_evidence.expect([])
    nixos_evidence.observe(["x.service", "\\x1b[31mred"])
    nixos_evidence.attach("journal of x.service", "it broke")
    assert 0, "failed: x.service"

@pytest.mark.nixos_control("BOOT-002")
def test_good(nixos_machine): pass

@pytest.mark.nixos_control("BOOT-004")
def test_other(nixos_machine):
    from pytest_nixos import not_applicable
    not_applicable("nothing runs")
"""


@pytest.fixture
def checks(field: Field) -> Field:
    field.pytester.makepyfile(_CHECKS)
    return field


def run_web(field: Field, *arguments: str) -> pytest.RunResult:
    return field.run(
        *("--nixos-flake", ".#web", "--nixos-suite", "none"),
        *("--nixos-report", "json:report.json", *arguments),
    )


def test_report_holds_every_control_with_evidence(checks: Field) -> None:
    run_web(checks).assert_outcomes(passed=1, failed=1, skipped=1)
    report = checks.report()
    assert report["counts"] == {"failed": 1, "not-applicable": 1, "passed": 1}
    worst = report["findings"][0]
    assert worst["control"] == "BOOT-001" and worst["outcome"] == "failed"
    assert worst["severity"] == "HIGH" and worst["remedy"] and worst["threat"]
    assert worst["expected"] == [] and worst["observed"][0] == "x.service"
    assert worst["attachments"] == {"journal of x.service": "it broke"}
    assert worst["reason"] == "failed: x.service"
    assert worst["pressure"].keys() == {"waited", "stolen", "span_s"}
    assert report["findings"][-1]["pressure"] == {}
    assert report["run"]["hosts"]["web"]["release"] == "24.05"


def test_terminal_shows_a_plan_and_no_guest_control_characters(checks: Field) -> None:
    result = run_web(checks)
    result.stdout.fnmatch_lines(
        [
            "*What to mend first (1 HIGH)*",
            "*1. HIGH BOOT-001 [[]web[]]*",
            "*failed: x.service*",
            "*observed: *x.service*",
        ]
    )
    assert "\x1b[31m" not in result.stdout.str()


def test_pytest_keeps_the_setups_and_teardowns_that_said_something(field: Field) -> None:
    field.pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def talks():
            yield
            print("said at the end")

        def test_silent(nixos_machine): pass
        def test_talks(nixos_machine, talks): assert False
    """)
    with (field.pytester.path / "conftest.py").open("a") as conftest:
        conftest.write(
            "\n\ndef pytest_terminal_summary(terminalreporter):\n"
            "    print('kept:', *((r.when, r.nodeid) for r in terminalreporter.stats['']))\n"
        )
    result = field.run_hosts("-k", "web")
    result.stdout.fnmatch_lines(["*Captured stdout teardown*", "said at the end"])
    (kept,) = [line for line in result.outlines if line.startswith("kept:")]
    assert kept.count("(") == 1
    assert "'teardown'" in kept
    assert "test_talks" in kept


def test_durations_tell_of_setups_too(field: Field) -> None:
    field.pytester.makepyfile("def test_silent(nixos_machine): pass")
    result = field.run_hosts("-k", "web", "--durations=0", "-vv")
    result.stdout.fnmatch_lines(["*s setup * test_durations*test_silent*"])


def test_ledger_has_each_finding_even_if_the_run_is_killed(checks: Field) -> None:
    checks.pytester.makepyfile(
        test_zz="import os\ndef test_kill(nixos_machine): os.kill(os.getpid(), 9)"
    )
    run_web(checks)
    (ledger,) = (checks.pytester.path / "state/pytest-nixos/ledgers").glob("*.jsonl")
    kept = findings.Ledger.read(ledger)
    assert [f.control for f in kept] == ["BOOT-001", "BOOT-002", "BOOT-004"]
    assert json.loads(ledger.read_text().splitlines()[0])["outcome"] == "failed"


def test_junit_properties_carry_control_and_severity(checks: Field) -> None:
    run_web(checks, "--junit-xml", "junit.xml")
    cases = ET.parse(checks.pytester.path / "junit.xml").findall(".//testcase")
    properties = {
        case.get("name"): {p.get("name"): p.get("value") for p in case.findall(".//property")}
        for case in cases
    }
    assert properties["test_bad[web]"] == {
        "nixos_control": "BOOT-001",
        "nixos_severity": "HIGH",
        "nixos_host": "web",
        "nixos_outcome": "failed",
        "nixos_judged_on": "machine",
    }


def test_whose_word_a_verdict_rests_on(field: Field) -> None:
    field.pytester.makepyfile(
        """
import pytest

@pytest.mark.nixos_control("FW-004")
def test_said_by_the_catalogue(nixos_machine): pass

@pytest.mark.nixos_control("BOOT-001")
def test_said_by_the_check(nixos_machine, nixos_evidence):
    nixos_evidence.judge_on("outside and machine")

@pytest.mark.nixos_control("BOOT-002")
def test_said_by_nobody(nixos_machine, nixos_evidence):
    nixos_evidence.judged_on = "hearsay"

@pytest.mark.nixos_control("FW-005")
def test_not_judged(nixos_machine):
    from pytest_nixos import not_applicable
    not_applicable("nothing listens")

@pytest.mark.nixos_control("BOOT-003")
def test_misspelt(nixos_machine, nixos_evidence):
    with pytest.raises(ValueError, match="outsid"):
        nixos_evidence.judge_on("outsid")
"""
    )
    run_web(field).assert_outcomes(passed=4, skipped=1)
    told = {f["control"]: f["judged_on"] for f in field.report()["findings"]}
    assert told == {
        "FW-004": "outside",
        "BOOT-001": "outside and machine",
        "BOOT-002": "machine",
        "FW-005": "nothing",
        "BOOT-003": "machine",
    }


def test_fail_on_reports_and_lets_pass(checks: Field) -> None:
    result = run_web(checks, "--nixos-fail-on", "critical")
    assert result.ret == 0
    result.assert_outcomes(passed=1, xfailed=1, skipped=1)
    assert checks.report()["counts"]["failed"] == 1


def waive(field: Field, control: str, expires: str, *, host: str = "web") -> None:
    (field.pytester.path / "waivers.toml").write_text(
        f'[[waiver]]\ncontrol = "{control}"\nhost = "{host}"\nreason = "known"\n'
        f'owner = "ops"\nexpires = {expires}\n'
    )


def test_waived_control_is_expected_to_fail(checks: Field) -> None:
    waive(checks, "BOOT-001", "2999-01-01")
    result = run_web(checks, "--nixos-waivers", "waivers.toml")
    result.assert_outcomes(passed=1, xfailed=1, skipped=1)
    assert result.ret == 0
    assert checks.report()["counts"]["waived"] == 1


def test_expired_waiver_fails_and_says_so(checks: Field) -> None:
    waive(checks, "BOOT-001", "2020-01-01")
    result = run_web(checks, "--nixos-waivers", "waivers.toml")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*waiver expired on 2020-01-01*"])


def test_needless_waiver_fails_and_says_so(checks: Field) -> None:
    waive(checks, "BOOT-002", "2999-01-01")
    result = run_web(checks, "--nixos-waivers", "waivers.toml")
    result.assert_outcomes(failed=2, skipped=1)
    result.stdout.fnmatch_lines(["*no longer needed*"])


@pytest.mark.parametrize(
    ("control", "host", "why"),
    [
        ("BOOT-001", "mail*", "no host of this run matches it (there are web)"),
        ("SYSCTL-001", "web", "the profiles of this run do not select the control"),
        ("LLM-004", "web", "the control is judged as OLL-004: waive that one"),
        ("BOOT-004", "web", "the control is not applicable on web: nothing runs"),
        ("BOOT-003", "web", "no check of this run judged the control"),
    ],
)
def test_waiver_that_waives_nothing_is_told(
    checks: Field, control: str, host: str, why: str
) -> None:
    waive(checks, control, "2999-01-01", host=host)
    result = run_web(checks, "--nixos-waivers", "waivers.toml")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    notice = f"waiver {control} for {host} waived nothing: {why}"
    assert notice in result.stdout.str()
    assert checks.report()["run"]["waiver_notices"] == [notice]


def test_waiver_that_waives_is_not_told(checks: Field) -> None:
    waive(checks, "BOOT-001", "2999-01-01")
    result = run_web(checks, "--nixos-waivers", "waivers.toml")
    assert "waived nothing" not in result.stdout.str()
    assert checks.report()["run"]["waiver_notices"] == []


def test_waiver_of_an_unknown_control_is_a_usage_error(checks: Field) -> None:
    waive(checks, "BOOT-01", "2999-01-01")
    result = run_web(checks, "--nixos-waivers", "waivers.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*waivers.toml: BOOT-01: control: is not known*BOOT-001*"])


def test_fail_on_does_not_hide_a_needless_waiver(checks: Field) -> None:
    waive(checks, "BOOT-002", "2999-01-01")
    result = run_web(checks, "--nixos-waivers", "waivers.toml", "--nixos-fail-on", "critical")
    result.assert_outcomes(failed=1, xfailed=1, skipped=1)


def test_last_failed_runs_only_the_failed_check(checks: Field) -> None:
    arguments = ("--nixos-flake", ".#web", "--nixos-suite", "none")
    checks.pytester.runpytest_subprocess(*arguments)
    again = checks.pytester.runpytest_subprocess(*arguments, "--lf")
    again.assert_outcomes(failed=1)


def test_a_failed_check_brings_the_journal_of_its_time(checks: Field) -> None:
    program = checks.pytester.path / "tools" / "journalctl"
    entry = {"PRIORITY": "3", "UNIT": "x.service", "MESSAGE": "it \x1b[31mbroke"}
    program.write_text(
        f"#!/bin/sh\necho \"$@\" >{checks.pytester.path}/journal.argv\ncat <<'E'\n{json.dumps(entry)}\nE\n"
    )
    program.chmod(0o755)
    result = run_web(checks)
    by_control = {finding["control"]: finding for finding in checks.report()["findings"]}
    (told,) = by_control["BOOT-001"]["journal"]
    assert (told["unit"], told["priority"], told["message"]) == (
        "x.service",
        3,
        "it \x1b[31mbroke",
    )
    assert by_control["BOOT-002"]["journal"] == []
    assert "--since=-" in (checks.pytester.path / "journal.argv").read_text()
    result.stdout.fnmatch_lines(["warnings of the journal meanwhile*", "*x.service: it *broke"])
    assert "\x1b[31mbroke" not in result.stdout.str()


def test_a_report_is_json_for_who_writes_it_into_a_file(checks: Field) -> None:
    """As pytest-reportlog does, in the process that runs the tests."""
    checks.pytester.makepyfile(
        log="""
        import json

        def pytest_configure(config):
            config.pluginmanager.register(Log(config))

        class Log:
            def __init__(self, config):
                self.config, self.lines = config, []

            def pytest_runtest_logreport(self, report):
                write = self.config.hook.pytest_report_to_serializable
                self.lines.append(json.dumps(write(config=self.config, report=report)))

            def pytest_unconfigure(self):
                self.config.rootpath.joinpath("log").write_text("\\n".join(self.lines))
        """
    )
    run_web(checks, "-p", "log").assert_outcomes(passed=1, failed=1, skipped=1)
    log = [
        json.loads(line) for line in checks.pytester.path.joinpath("log").read_text().split("\n")
    ]
    told = [line["nixos_finding"] for line in log if "nixos_finding" in line]
    assert {finding["control"]: finding["outcome"] for finding in told} == {
        "BOOT-001": "failed",
        "BOOT-002": "passed",
        "BOOT-004": "not-applicable",
    }
    assert told[0]["severity"] == "HIGH" and told[0]["observed"][0] == "x.service"


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
def test_what_a_check_saw_is_told_as_it_was_then(field: Field, workers: tuple[str, ...]) -> None:
    field.pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def seen():
            seen = {"units": {b"x.service"}, b"in bytes": 1, ("a", 2): 2}
            yield seen
            seen.clear()

        @pytest.mark.nixos_control("BOOT-001")
        def test_bad(nixos_machine, nixos_evidence, seen):
            nixos_evidence.observe(seen)
            nixos_evidence.expect((seen["units"],))
            assert 0
        """
    )
    run_web(field, *workers)
    (finding,) = field.report()["findings"]
    assert finding["observed"] == {"units": ["x.service"], "in bytes": 1, "['a', 2]": 2}
    assert finding["expected"] == [["x.service"]]
