"""Runs on fake machines: hosts, fixtures, one boot a host, failures shown once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.plugin.field import Field


def test_every_host_gets_every_test_and_boots_once(field: Field) -> None:
    field.pytester.makepyfile(
        test_one="""
        def test_config(nixos_host_config): assert nixos_host_config.host_name == "web"
        def test_run(nixos_machine): assert nixos_machine.run("echo hi").stdout == b"hi\\n"
        """,
        test_two="def test_host(host): assert host.check_output('echo %s', 'a b') == 'a b'",
    )
    result = field.run_hosts("-v")
    result.assert_outcomes(passed=6)
    assert field.machine_log == ["start db.one", "stop db.one", "start web", "stop web"]
    result.stdout.fnmatch_lines(["*test_run[[]db.one[]]*", "*test_run[[]web[]]*"])


def test_what_only_some_runs_need_is_not_imported_before_the_first_test(field: Field) -> None:
    field.pytester.makepyfile(
        """
        import sys
        def test_a(nixos_host_config):
            seldom = ["rich", "jsonschema", "cryptography", "yaml", "passlib"]
            assert [name for name in seldom if name in sys.modules] == []
        """
    )
    field.run_hosts().assert_outcomes(passed=2)


def test_what_stays_until_the_end_is_no_work_for_the_collector(field: Field) -> None:
    field.pytester.makepyfile(
        """
        import gc
        def test_a(nixos_host_config): assert gc.get_freeze_count() > 10_000
        """
    )
    field.run_hosts().assert_outcomes(passed=2)


def test_the_collector_walks_through_nothing_while_pytest_collects(field: Field) -> None:
    field.pytester.makepyfile(
        """
        import gc
        WALKS = gc.isenabled()
        def test_a(nixos_host_config): assert not WALKS and gc.isenabled()
        """
    )
    field.run_hosts().assert_outcomes(passed=2)


def test_our_host_fixture_wins_over_testinfras(field: Field) -> None:
    field.pytester.makepyfile("def test_a(host): assert host.backend.NAME == 'nixos'")
    field.run_hosts().assert_outcomes(passed=2)


def test_one_host_can_be_chosen(field: Field) -> None:
    field.pytester.makepyfile("def test_a(nixos_machine): pass")
    field.run("--nixos-flake", ".#db.one", "--nixos-suite", "none").assert_outcomes(passed=1)
    assert field.machine_log == ["start db.one", "stop db.one"]


def test_marker_limits_hosts_and_says_where_none_matches(field: Field) -> None:
    field.pytester.makepyfile(
        """
        import pytest
        @pytest.mark.nixos_hosts("db.*")
        def test_db(nixos_host_config): pass
        @pytest.mark.nixos_hosts("mail*")
        def test_mail(nixos_host_config): pass
        """
    )
    result = field.run_hosts("-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["*not applicable: no host of this run matches nixos_hosts(mail[*])*"]
    )


def test_failed_boot_is_shown_once_and_never_skipped(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "panics web")
    field.pytester.makepyfile(
        "def test_a(nixos_machine): pass\ndef test_b(host): pass\ndef test_c(host): pass"
    )
    result = field.run_hosts()
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*3 passed, 1 error, 2 not judged in *"])
    text = result.stdout.str()
    assert text.count("Kernel panic - not syncing") == 1
    assert "Traceback" not in text
    assert field.machine_log.count("start panics") == 1


def test_host_that_does_not_evaluate_leaves_the_others_alone(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "broken web")
    field.pytester.makepyfile(
        "import pytest\n@pytest.mark.nixos_control('BOOT-001')\ndef test_a(nixos_host_config): pass"
    )
    result = field.run_hosts()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*services.nonsense* does not exist*"])
    # In the error and in the plan, where a remedy without its command was of no use.
    commands = [line for line in result.outlines if line.strip().startswith("nix ")]
    assert len(commands) == 2 and all("--show-trace" in line for line in commands)


def test_machine_that_goes_away_is_an_error_and_later_tests_fail_fast(field: Field) -> None:
    field.pytester.makepyfile(
        "def test_a(nixos_machine): nixos_machine.run('die')\ndef test_b(nixos_machine): pass"
    )
    result = field.run("--nixos-flake", ".#web", "--nixos-suite", "none")
    text = result.stdout.str()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "the guest is gone" in text and "Traceback" not in text
    result.stdout.fnmatch_lines(["*1 error, 1 not judged in *"])
    assert field.machine_log == ["start web", "stop web"]


def test_destructive_tests_come_last(field: Field) -> None:
    field.pytester.makepyfile(
        """
        import pytest
        @pytest.mark.nixos_destructive
        def test_breaks(nixos_machine): pass
        def test_looks(nixos_machine): pass
        """
    )
    result = field.run("--nixos-flake", ".#web", "--nixos-suite", "none", "-v")
    result.stdout.fnmatch_lines(["*test_looks*PASSED*", "*test_breaks*PASSED*"])


def test_fresh_machine_is_one_more_machine(field: Field) -> None:
    field.pytester.makepyfile(
        "def test_a(nixos_machine, nixos_fresh_machine): assert nixos_machine is not nixos_fresh_machine"
    )
    field.run("--nixos-flake", ".#web", "--nixos-suite", "none").assert_outcomes(passed=1)
    assert field.machine_log.count("start web") == 2 == field.machine_log.count("stop web")


_ONLY_THE_FIRST_BOOTS = (
    'if spec.host.name == "panics":',
    'if "stop" not in LOG.read_text() and LOG.read_text().count("start") > 1:',
)


def test_a_fresh_machine_that_does_not_boot_fails_its_own_test_only(field: Field) -> None:
    conftest = field.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace(*_ONLY_THE_FIRST_BOOTS))
    field.pytester.makepyfile(
        """
        def test_a(nixos_machine): pass
        def test_b(nixos_fresh_machine): pass
        def test_c(nixos_machine): pass
        def test_d(nixos_fresh_machine): pass
        """
    )
    result = field.run("--nixos-flake", ".#web", "--nixos-suite", "none")
    # Each fresh machine is tried: what ails one says little of the next.
    result.assert_outcomes(passed=2, errors=2)
    assert result.stdout.str().count("remedy: mend the kernel") == 2
    assert field.machine_log.count("start web") == 3


def test_a_rebooting_machine_that_does_not_boot_is_told_once_and_condemns_no_other(
    field: Field,
) -> None:
    conftest = field.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text().replace(*_ONLY_THE_FIRST_BOOTS))
    field.pytester.makepyfile(
        """
        import pytest
        def test_a(nixos_machine): pass
        def test_b(nixos_rebooting_machine): pass
        def test_c(nixos_rebooting_machine): pass
        @pytest.mark.nixos_requires("boot-loader")
        def test_d(nixos_fresh_machine): pass
        def test_e(nixos_machine): pass
        """
    )
    result = field.run("--nixos-flake", ".#web", "--nixos-suite", "none")
    result.stdout.fnmatch_lines(["*2 passed, 1 error, 2 not judged in *"])
    assert result.stdout.str().count("remedy: mend the kernel") == 1
    assert field.machine_log.count("start web") == 2


def test_a_fresh_machine_that_goes_away_leaves_the_shared_one_alone(field: Field) -> None:
    field.pytester.makepyfile(
        """
        def test_a(nixos_fresh_machine): nixos_fresh_machine.run("die")
        def test_b(nixos_machine): nixos_machine.run("true")
        """
    )
    result = field.run("--nixos-flake", ".#web", "--nixos-suite", "none")
    result.assert_outcomes(passed=1, errors=1)


def test_exit_first_stops_and_the_machine_is_stopped(field: Field) -> None:
    field.pytester.makepyfile(
        "def test_a(nixos_machine): assert 0\ndef test_b(nixos_machine): pass"
    )
    field.run_hosts("-x").assert_outcomes(failed=1)
    assert field.machine_log == ["start db.one", "stop db.one"]


def test_run_directories_do_not_stay(field: Field) -> None:
    field.pytester.makepyfile(
        """
        from pathlib import Path
        def test_a(nixos_machine):
            with Path("directories").open("a") as log:
                log.write(f"{nixos_machine.spec.run_dir}\\n")
        """
    )
    field.run_hosts().assert_outcomes(passed=2)
    directories = (field.pytester.path / "directories").read_text().split()
    assert len(directories) == 2 and not any(Path(d).exists() for d in directories)


def test_kept_directory_is_named(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    # A job of CI keeps the directory alone; else the machine would go on running.
    monkeypatch.setenv("CI", "true")
    field.pytester.makepyfile("def test_a(nixos_machine): assert 0")
    result = field.run("--nixos-flake", ".#web", "--nixos-suite", "none", "--nixos-keep", "failed")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # pytest writes its own letter for the test on the same line.
    (line,) = [line for line in result.outlines if "nixos: web: kept " in line]
    directory = Path(line.partition("nixos: web: kept ")[2].partition(" (not running")[0])
    assert directory.is_dir()
    shutil.rmtree(directory)


def test_workers_boot_each_host_once(field: Field) -> None:
    field.pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parametrize("n", range(4))
        def test_a(nixos_machine, n): pass
        @pytest.mark.nixos_control("BOOT-001")
        def test_b(nixos_machine): assert 0, "unit x failed"
        """
    )
    result = field.run_hosts("-n", "2", "--nixos-report", "json:report.json")
    result.assert_outcomes(passed=8, failed=2)
    assert sorted(field.machine_log) == ["start db.one", "start web", "stop db.one", "stop web"]
    assert {f["host"] for f in field.report()["findings"]} == {"db.one", "web"}
    assert set(field.report()["run"]["hosts"]["web"]["phases_s"]) >= {"evaluate", "build", "boot"}


_BOOT_CHECKS = """
import pytest

@pytest.mark.nixos_control("BOOT-001")
def test_units(nixos_machine): pass

@pytest.mark.nixos_control("BOOT-003")
def test_generation(nixos_machine): pass

@pytest.mark.nixos_control("BOOT-004")
def test_config(nixos_host_config): pass

@pytest.mark.nixos_control("BOOT-002")
def test_boot(nixos_boot_failure, nixos_evidence):
    if nixos_boot_failure is not None:
        nixos_evidence.blame("machine")
        nixos_evidence.remedy = nixos_boot_failure.remedy
        pytest.fail(nixos_boot_failure.message, pytrace=False)
"""


def test_a_failed_boot_is_one_finding_that_explains_what_was_not_judged(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "panics")
    field.pytester.makepyfile(_BOOT_CHECKS)
    result = field.run_hosts("--nixos-report", "json:report.json", "-v")
    result.stdout.fnmatch_lines(
        [
            "*test_boot[[]panics[]] FAILED*",
            "*test_units[[]panics[]] ERROR*",
            "*test_config[[]panics[]] PASSED*",
            "What to mend first (1 HIGH):",
            "  1. HIGH BOOT-002*",
            "*2 controls not judged: the machine did not boot",
            "*remedy:   mend the kernel",
            "*1 failed, 1 passed, 2 not judged in *",
        ]
    )
    assert result.stdout.str().count("remedy:") == 2  # below the failed item, and in the plan
    boot, *unjudged, passed = field.report()["findings"]
    assert (boot["control"], boot["outcome"]) == ("BOOT-002", "failed")
    assert boot["explains"] == ["BOOT-001", "BOOT-003"]
    assert passed["outcome"] == "passed"
    for finding in unjudged:
        assert finding["outcome"] == "error" and finding["caused_by"] == ["BOOT-002"]
        assert finding["reason"] == "not judged: the machine did not boot"
        assert finding["remedy"] == finding["threat"] == ""
    assert field.machine_log == ["start panics"]


def test_a_failed_boot_that_no_control_judges_is_told_once(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "panics")
    field.pytester.makepyfile(_BOOT_CHECKS)
    result = field.run_hosts("--nixos-report", "json:report.json", "-k", "not test_boot")
    result.stdout.fnmatch_lines(
        [
            "2 controls not judged on panics: the machine did not boot",
            "*panics: kernel panic after 1 s",
            "*remedy: mend the kernel",
            "*1 passed, 1 deselected, 1 error, 1 not judged in *",
        ]
    )
    assert result.stdout.str().count("Kernel panic - not syncing") == 1
    host = field.report()["run"]["hosts"]["panics"]
    assert host["why"] == "the machine did not boot" and "kernel panic" in host["failure"]


def test_a_boot_that_a_data_control_began_is_an_error_not_a_violated_control(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "panics")
    field.pytester.makepyfile("")
    result = field.run(
        *("--nixos-flake", ".#panics", "--nixos-suite", "kernel-sysctl"),
        *("--nixos-report", "json:report.json"),
    )
    outcomes = {finding["outcome"] for finding in field.report()["findings"]}
    assert "error" in outcomes and "failed" not in outcomes
    assert result.stdout.str().count("Kernel panic - not syncing") == 1


def test_what_ran_out_of_time_is_shown_with_how_busy_this_machine_was(field: Field) -> None:
    field.pytester.makepyfile(
        """
        import msgspec
        from pytest_nixos import CommandTimeout, TransportError
        from pytest_nixos.local import pace

        real = pace.PressureMark.until

        def busy(self, later):
            return msgspec.structs.replace(real(self, later), waited=0.97)

        pace.PressureMark.until = busy

        def test_slow(nixos_machine):
            raise CommandTimeout("still running after 120 s", remedy="wait")

        def test_other(nixos_machine):
            raise TransportError("no room in /run", remedy="make some")
        """
    )
    result = field.run("--nixos-flake", ".#web", "--nixos-suite", "none")
    result.stdout.fnmatch_lines(
        ["*still running after 120 s*", "*this machine was busy: processes waited*97% of the time*"]
    )
    assert result.stdout.str().count("this machine was busy") == 1
