"""The next machine of a test's own is ready before it is wanted: one, only where a test wants it, and
never instead of what the test would have been told.
"""

from __future__ import annotations

import pytest

from tests.plugin.field import Field
from tests.plugin.warm import clones, make_warm, run_web

# What a test body waits for, so that the order of the log is certain.
LOOK = """
import time
from pathlib import Path
LOG = Path({log!r})

def wait_for(line):
    end_s = time.monotonic() + 60
    while line not in LOG.read_text().splitlines():
        assert time.monotonic() < end_s
        time.sleep(0.02)
"""
THE_FIRST = ["clone web ahead"]


@pytest.fixture
def warm(field: Field, monkeypatch: pytest.MonkeyPatch) -> Field:
    """A host that has a snapshot."""
    return make_warm(field, monkeypatch)


def write(field: Field, tests: str) -> None:
    field.pytester.makepyfile(LOOK.format(log=str(field.log)) + tests)


def test_the_next_one_rests_until_it_is_wanted(warm: Field) -> None:
    write(
        warm,
        """
def test_a(nixos_fresh_machine): wait_for("rest web")
def test_b(nixos_fresh_machine): assert nixos_fresh_machine.run("echo hi").stdout == b"hi\\n"
def test_c(nixos_host_config): pass
""",
    )
    result = run_web(warm)
    result.assert_outcomes(passed=3)
    one = ["clone web ahead", "rest web", "stop web", "rouse web", "stop web"]
    assert warm.machine_log == [*THE_FIRST, *one]


def test_a_test_that_comes_early_waits_for_one_that_never_rested(warm: Field) -> None:
    clones(warm, sleep_s=1.0)
    write(warm, "def test_a(nixos_fresh_machine): pass\ndef test_b(nixos_fresh_machine): pass\n")
    run_web(warm).assert_outcomes(passed=2)
    assert sorted(warm.machine_log) == ["clone web ahead"] * 2 + ["stop web"] * 2


def test_it_is_begun_some_tests_before(warm: Field) -> None:
    write(
        warm,
        """
def test_a(nixos_machine): wait_for("rest web")
def test_b(nixos_machine): pass
def test_c(nixos_fresh_machine): pass
""",
    )
    run_web(warm).assert_outcomes(passed=3)
    assert warm.machine_log.count("rouse web") == 1


def test_a_worker_has_one_for_its_next_test(warm: Field) -> None:
    write(
        warm,
        """
def test_a(nixos_machine): pass
def test_b(nixos_machine): wait_for("rest web")
def test_c(nixos_fresh_machine): pass
""",
    )
    run_web(warm, "-n1").assert_outcomes(passed=3)
    assert warm.machine_log.count("rouse web") == 1


def test_one_that_nobody_takes_is_ended_with_the_next_test(warm: Field) -> None:
    write(
        warm,
        """
import pytest
def test_a(nixos_machine): wait_for("rest web")
@pytest.fixture
def gone(): pytest.skip("not here")
def test_b(gone, nixos_fresh_machine): pass
def test_c(nixos_machine): wait_for("stop web")
""",
    )
    run_web(warm).assert_outcomes(passed=2, skipped=1)
    assert warm.machine_log == [*THE_FIRST, "clone web ahead", "rest web", "stop web", "stop web"]


def test_a_host_without_a_snapshot_is_asked_once(warm: Field) -> None:
    clones(warm, fails=True)
    one = "def test_{}(nixos_fresh_machine): assert LOG.read_text().count('clone') {}\n"
    write(warm, one.format("a", ">= 1") + one.format("b", "== 2") + one.format("c", "== 2"))
    result = run_web(warm)
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*no snapshot*")
    assert warm.machine_log.count("start web") == 3


def test_a_machine_that_does_not_go_on_is_another_one(warm: Field) -> None:
    conftest = warm.pytester.path / "conftest.py"
    conftest.write_text(
        conftest.read_text().replace(
            "        if self.rested:\n",
            "        if self.rested:\n            raise MachineError('hangs', remedy='none')\n",
        )
    )
    write(
        warm,
        """
def test_a(nixos_fresh_machine): wait_for("rest web")
def test_b(nixos_fresh_machine): pass
""",
    )
    run_web(warm).assert_outcomes(passed=2)
    rests = ["clone web ahead", "rest web", "stop web", "stop web"]
    assert warm.machine_log == [*THE_FIRST, *rests, "start web", "stop web"]


@pytest.mark.parametrize("argument", ["--nixos-snapshot=off", "--collect-only"])
def test_not_where_a_clone_is_not_wanted(warm: Field, argument: str) -> None:
    write(warm, "def test_a(nixos_machine): pass\ndef test_b(nixos_fresh_machine): pass\n")
    run_web(warm, argument)
    assert "clone web ahead" not in warm.machine_log


def test_not_where_memory_is_short(warm: Field) -> None:
    conftest = warm.pytester.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + "\nfrom pytest_nixos.plugin.machines import next_fresh\nnext_fresh.leaves_half_free = lambda: False\n"
    )
    write(warm, "def test_a(nixos_machine): pass\ndef test_b(nixos_fresh_machine): pass\n")
    run_web(warm).assert_outcomes(passed=2)
    assert warm.machine_log == [*THE_FIRST, "start web", "stop web", "stop web"]


def test_interrupted_while_one_rests(warm: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = warm.pytester.mkdir("t")
    monkeypatch.setenv("TMPDIR", str(temporary))
    write(
        warm,
        """
def test_a(nixos_machine):
    wait_for("rest web")
    raise KeyboardInterrupt
def test_b(nixos_fresh_machine): pass
""",
    )
    assert run_web(warm).ret == pytest.ExitCode.INTERRUPTED
    assert warm.machine_log == [*THE_FIRST, "clone web ahead", "rest web", "stop web", "stop web"]
    assert list(temporary.glob("pytest-nixos-*")) == []
