"""Hostile text, dying workers, and a state directory that cannot be written: one word, and no
lie.
"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.plugin.field import Field

WEB = ("--nixos-flake", ".#web", "--nixos-suite", "none")
REPORT = ("--nixos-report", "json:report.json")
EVIL = "\\x1b[31mred\\x1b]0;title\\x07 \\x9b2J \\u202etxt"
HARMFUL = {"\x1b", "\x07", "\x9b", "\u202e"}


def test_nothing_that_a_guest_says_is_obeyed_on_a_terminal_or_in_junit(field: Field) -> None:
    field.pytester.makepyfile(
        f"""
        import pytest
        from pytest_nixos import MachineError, not_applicable

        @pytest.mark.nixos_control("BOOT-001")
        def test_control(nixos_machine): assert 0, "{EVIL}"
        def test_own(nixos_machine):
            print("{EVIL}")
            raise ValueError("{EVIL}")
        def test_chain(nixos_machine):
            try:
                raise KeyError("{EVIL}")
            except KeyError as err:
                raise RuntimeError("{EVIL}") from err
        def test_error(nixos_machine): raise MachineError("{EVIL}", remedy="{EVIL}")
        def test_skip(nixos_machine): not_applicable("{EVIL}")
        def test_property(nixos_machine, record_property): record_property("said", "{EVIL}")
        """
    )
    result = field.run(*WEB, "-rA", "-vv", "--junit-xml", "junit.xml", *REPORT)
    result.assert_outcomes(failed=3, errors=1, skipped=1, passed=1)
    assert not HARMFUL & set(result.stdout.str())
    junit = (field.pytester.path / "junit.xml").read_text()
    assert not HARMFUL & set(junit) and "#x1B" not in junit
    ET.fromstring(junit)
    assert "red" in junit


_DYING = """
import os
import pytest

@pytest.mark.nixos_control("BOOT-001")
def test_before(nixos_machine): pass

@pytest.mark.nixos_control("BOOT-004")
def test_dies(nixos_machine): os._exit(3)

@pytest.mark.nixos_control("BOOT-003")
def test_after(nixos_machine): pass
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_that_dies_is_an_error_and_the_run_ends(field: Field, workers: str) -> None:
    field.pytester.makepyfile(_DYING)
    result = field.pytester.runpytest_subprocess(*WEB, *REPORT, "-n", workers, timeout=120)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = {finding["control"]: finding for finding in field.report()["findings"]}
    assert {control: f["outcome"] for control, f in found.items()} == {
        "BOOT-001": "passed",
        "BOOT-003": "passed",
        "BOOT-004": "error",
    }
    assert "crashed while running" in found["BOOT-004"]["reason"]
    (death,) = field.report()["run"]["incomplete"]
    assert "test_dies[web]" in death


def test_workers_that_all_die_leave_errors_for_what_they_were_to_judge(field: Field) -> None:
    field.pytester.makepyfile(_DYING)
    result = field.pytester.runpytest_subprocess(
        *WEB, *REPORT, "-n", "1", "--max-worker-restart", "0", timeout=120
    )
    assert result.ret != pytest.ExitCode.OK
    found = {finding["control"]: finding for finding in field.report()["findings"]}
    assert found["BOOT-003"]["outcome"] == "error"
    assert found["BOOT-003"]["reason"] == "not judged: the worker that was to judge it died"


@pytest.mark.parametrize("state", ["file", "dangling", "unwritable"])
def test_without_a_ledger_the_run_goes_on_and_says_so(
    field: Field, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    place = field.pytester.path / "elsewhere"
    if state == "file":
        place.write_text("")
    elif state == "dangling":
        place.symlink_to("/nonexistent/place")
    else:
        place = Path("/proc/self")  # where not even root makes a directory
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    field.pytester.makepyfile(_DYING.replace("os._exit(3)", "pass"))
    result = field.run(*WEB, *REPORT)
    result.assert_outcomes(passed=3)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["ledger: not kept: *"])
    assert field.report()["counts"] == {"passed": 3}


def test_a_full_disk_ends_the_ledger_and_not_the_run(field: Field) -> None:
    field.pytester.makepyfile(_DYING.replace("os._exit(3)", "pass"))
    ledgers = field.pytester.path / "state" / "pytest-nixos" / "ledgers"
    ledgers.mkdir(parents=True)
    conftest = field.pytester.path / "conftest.py"
    conftest.write_text(
        conftest.read_text() + "\n\nimport errno\nfrom pytest_nixos.findings import Ledger\n"
        "def full(self, finding): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "Ledger.append = full\n"
    )
    result = field.run(*WEB, *REPORT)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["ledger: not kept: No space left on device"])
    assert json.loads((field.pytester.path / "report.json").read_text())["counts"] == {"passed": 3}
