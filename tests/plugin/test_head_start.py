"""A machine that is started while pytest collects: taken by the first test that asks, ended where
none does, and never instead of what a test would have been told.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.plugin.field import Field
from tests.plugin.warm import clones, make_warm, run_web

AHEAD = ["clone web ahead", "stop web"]


@pytest.fixture
def warm(field: Field, monkeypatch: pytest.MonkeyPatch) -> Field:
    """A host that is evaluated and built, on a backend that has a snapshot of it."""
    return make_warm(field, monkeypatch)


def test_the_first_test_that_asks_gets_it(warm: Field) -> None:
    warm.pytester.makepyfile(
        """
        def test_a(nixos_machine): assert nixos_machine.run("echo hi").stdout == b"hi\\n"
        def test_b(nixos_machine): pass
        """
    )
    run_web(warm).assert_outcomes(passed=2)
    assert warm.machine_log == AHEAD


def test_a_test_with_a_machine_of_its_own_takes_it_too(warm: Field) -> None:
    warm.pytester.makepyfile(
        "def test_a(nixos_fresh_machine): pass\ndef test_b(nixos_machine): pass"
    )
    run_web(warm).assert_outcomes(passed=2)
    assert warm.machine_log == [*AHEAD, "start web", "stop web"]


def test_plugins_are_told_of_it_where_tests_run(warm: Field) -> None:
    conftest = warm.pytester.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """
def pytest_nixos_machine_booted(config, machine):
    with LOG.open("a") as log:
        log.write(f"booted {threading.current_thread() is threading.main_thread()}\\n")
"""
    )
    warm.pytester.makepyfile("def test_a(nixos_machine): pass")
    run_web(warm).assert_outcomes(passed=1)
    assert warm.machine_log == ["clone web ahead", "booted True", "stop web"]


@pytest.mark.parametrize("test", ["def test_a(nixos_host_config): pass", "def test_a(): pass"])
def test_nobody_asks_and_it_is_ended(warm: Field, test: str) -> None:
    warm.pytester.makepyfile(test)
    run_web(warm).assert_outcomes(passed=1)
    assert warm.machine_log in ([], AHEAD)  # nothing where that was known before it began


def test_threads_take_short_turns_while_it_starts(warm: Field) -> None:
    conftest = warm.pytester.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """
import sys
def pytest_configure(config):
    # What is added first is done last.
    config.add_cleanup(lambda: LOG.open("a").write(f"end {sys.getswitchinterval()}\\n"))
"""
    )
    warm.pytester.makepyfile(
        """
        import sys
        COLLECTED_WITH = sys.getswitchinterval()
        def test_a(nixos_machine): assert COLLECTED_WITH < 0.001
        """
    )
    run_web(warm).assert_outcomes(passed=1)
    assert warm.machine_log == [*AHEAD, f"end {sys.getswitchinterval()}"]


def test_what_goes_wrong_with_it_is_told_by_the_usual_way_up(warm: Field) -> None:
    clones(warm, fails=True)
    warm.pytester.makepyfile("def test_a(nixos_machine): pass")
    result = run_web(warm)
    result.assert_outcomes(passed=1)
    assert warm.machine_log == ["clone web ahead", "start web", "stop web"]
    result.stdout.no_fnmatch_line("*no snapshot*")


def test_nobody_gets_one_that_nix_does_not_keep(
    warm: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_BUILD_FAILS", "the store is full")
    warm.pytester.makepyfile("def test_a(nixos_machine): pass")
    result = run_web(warm)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the store is full*"])
    assert warm.machine_log == AHEAD


def test_a_changed_flake_is_evaluated_and_booted(
    warm: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_CONTENT", "changed")
    warm.pytester.makepyfile("def test_a(nixos_machine): pass")
    run_web(warm).assert_outcomes(passed=1)
    assert warm.machine_log == ["start web", "stop web"]


@pytest.mark.parametrize(
    "argument", ["--nixos-snapshot=off", "--nixos-snapshot=refresh", "--collect-only"]
)
def test_not_where_a_clone_is_not_wanted(warm: Field, argument: str) -> None:
    warm.pytester.makepyfile("def test_a(nixos_machine): pass")
    run_web(warm, argument)
    assert "clone web ahead" not in warm.machine_log


def test_a_flake_that_cannot_be_read_is_told_once(
    warm: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NIX_METADATA_FAILS", "the flake is a riddle")
    warm.pytester.makepyfile("def test_a(nixos_machine): pass")
    result = run_web(warm)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().count("the flake is a riddle") == 1


COLLECTING = """
from pathlib import Path
import time
Path("there").touch()
time.sleep(60)
"""
WAITING = """
import pytest
from pathlib import Path
@pytest.fixture(scope="session", autouse=True)
def there(): Path("there").touch()
def test_a(nixos_machine): pass
"""


@pytest.mark.parametrize("text", [COLLECTING, WAITING], ids=["collecting", "waiting"])
def test_interrupted_while_it_starts(warm: Field, text: str) -> None:
    clones(warm, sleep_s=60.0)
    test = warm.pytester.makepyfile(text)
    arguments = ["--nixos-flake", ".#web", "--nixos-suite", "none", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        # Who started the tests in the background has Ctrl-C ignored (POSIX, "sh").
        ["env", "--default-signal=INT", sys.executable, "-m", "pytest", *arguments, test.name],
        cwd=warm.pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(warm.pytester.mkdir("t"))},
    )
    with process:
        wait_for(lambda: "clone web ahead" in warm.machine_log)
        wait_for((warm.pytester.path / "there").exists)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=9)[0].decode()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert warm.machine_log == ["clone web ahead", "gave up web"]
    assert list((warm.pytester.path / "t").glob("pytest-nixos-*")) == []


def wait_for(reached: object, limit_s: float = 60.0) -> None:
    end_s = time.monotonic() + limit_s
    assert callable(reached)
    while not reached():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_is_kept_after_a_failure_where_that_is_wanted(
    warm: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A job of CI keeps the directory alone; else the machine would go on running.
    monkeypatch.setenv("CI", "true")
    warm.pytester.makepyfile("def test_a(nixos_machine): assert False")
    result = run_web(warm, "--nixos-keep", "failed")
    result.assert_outcomes(failed=1)
    (line,) = [line for line in result.outlines if "kept /" in line]
    kept = Path(line.rpartition("kept ")[2].partition(" (not running")[0])
    assert kept.is_dir()
    shutil.rmtree(kept)
