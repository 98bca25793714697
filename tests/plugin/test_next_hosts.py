"""Containers of next hosts boot while the tests before them run, and end while those after them do:
each tells what it would have told alone, what measures time is left alone, and nothing stays.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.field import CONFTEST, Field

BOXES = """
import os, signal, threading, time
from pytest_nixos.local.timing import Recalled
from pytest_nixos.local import memory
from pytest_nixos.plugin.machines import next_hosts

next_hosts.os.sched_getaffinity = lambda _: set(range({processors}))
memory.total_bytes = memory.available_bytes = lambda: 1 << 40

def write(line):
    with LOG.open("a") as log:
        log.write(line + "\\n")

class Box(Running):
    def stop(self):
        end_s = time.monotonic() + 30
        while self.name == {slow_to_end!r} and "test b" not in LOG.read_text():
            assert time.monotonic() < end_s, "the next host was not tested meanwhile"
            time.sleep(0.02)
        super().stop()

class Boxes(FakeBackend):
    name = BackendName.CONTAINER

    def start(self, spec, *, deadline):
        host = spec.host.name
        where = "here" if threading.current_thread() is threading.main_thread() else "ahead"
        write(f"begin {{host}} {{where}}")
        try:
            if host == {interrupts!r}:
                while "tested a" not in LOG.read_text():
                    time.sleep(0.02)
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGINT)
            end_s = time.monotonic() + (60 if host in {slow!r} else 0)
            while time.monotonic() < end_s:
                time.sleep(min(0.05, deadline.remaining_s))
        except Recalled:
            write(f"gave up {{host}}")
            raise
        super().start(spec, deadline=deadline)
        return Box(host)

def pytest_nixos_backends(config, settings):
    return {{"container": Boxes()}}
"""
TESTS = """
import time
from pathlib import Path
import pytest
LOG = Path({log!r})

def wait_for(line):
    end_s = time.monotonic() + 60
    while line not in LOG.read_text().splitlines():
        assert time.monotonic() < end_s, line
        time.sleep(0.02)

@pytest.fixture
def name(nixos_host_config):
    return nixos_host_config.ref.attr

@pytest.fixture
def told(name):
    with LOG.open("a") as log:
        log.write(f"test {{name}}\\n")
"""
BUDGET = {"passthru.pytest-nixos": {"bootBudget": 60}}


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory of a short path: for its sockets, a run directory with a longer one goes elsewhere."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def hosts(field: Field, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> Field:
    """Three containers, built."""
    monkeypatch.setenv("FAKE_NIX_HOSTS", "a b c")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT", raising=False)
    built = field.pytester.path / "built"
    built.touch()
    declare(field, output=str(built))
    boxes(field)
    return field


def declare(field: Field, **facts: object) -> None:
    path = field.pytester.path / "document.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def boxes(
    field: Field,
    *,
    slow: tuple[str, ...] = (),
    interrupts: str = "",
    slow_to_end: str = "",
    processors: int = 2,
) -> None:
    """Have containers of which some take a minute to start or wait with their end for the next test."""
    words = {"slow": slow, "interrupts": interrupts, "slow_to_end": slow_to_end}
    text = (CONFTEST + BOXES).format(log=str(field.log), processors=processors, **words)
    field.pytester.makeconftest(text)


def run(field: Field, tests: str, *arguments: str) -> pytest.RunResult:
    field.pytester.makepyfile(TESTS.format(log=str(field.log)) + tests)
    return field.run_hosts("--nixos-backend", "container", *arguments)


def of(field: Field, host: str) -> list[str]:
    return [line for line in field.machine_log if host in line.split()]


def leftovers(temporary: Path) -> list[Path]:
    return list(temporary.glob("pytest-nixos-*"))


def test_the_next_host_boots_beside_the_tests(hosts: Field, temporary: Path) -> None:
    result = run(
        hosts,
        """
def test_it(name, nixos_machine):
    assert nixos_machine.run("echo hi").stdout == b"hi\\n"
    if name != "c":
        wait_for("start b" if name == "a" else "start c")
""",
    )
    result.assert_outcomes(passed=3)
    assert [of(hosts, name) for name in "abc"] == [
        ["begin a here", "start a", "stop a"],
        ["begin b ahead", "start b", "stop b"],
        ["begin c ahead", "start c", "stop c"],
    ]
    assert result.stdout.str().count("a swap device is not in the container") == 3
    assert result.stdout.str().count("slower than planned") <= 1
    assert leftovers(temporary) == []


def test_a_host_ends_beside_the_tests_of_the_next(hosts: Field, temporary: Path) -> None:
    boxes(hosts, slow_to_end="a")
    run(hosts, "def test_it(nixos_machine, told): pass").assert_outcomes(passed=3)
    assert len([line for line in hosts.machine_log if line.startswith("stop")]) == 3
    assert leftovers(temporary) == []


@pytest.mark.parametrize("processors", [1, 3])
def test_as_many_as_processors_boot_at_once(hosts: Field, processors: int) -> None:
    boxes(hosts, processors=processors)
    test = """
def test_it(name, nixos_machine):
    if name == "a":
        wait_for("start b")
        {then}
"""
    one, more = 'time.sleep(0.3); assert "begin c" not in LOG.read_text()', 'wait_for("start c")'
    run(hosts, test.format(then=more if processors > 1 else one)).assert_outcomes(passed=3)
    assert of(hosts, "b")[0] == "begin b ahead"


def test_one_that_fails_fails_its_own_tests_once(
    hosts: Field, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "a panics z")
    tests = "def test_one(nixos_machine): pass\ndef test_two(nixos_machine): pass"
    result = run(hosts, tests, "--nixos-report", "json:report.json")
    result.stdout.fnmatch_lines(
        ["*panics: kernel panic after 1 s*", "*4 passed, 1 error, 1 not judged*"]
    )
    assert of(hosts, "panics") == ["begin panics ahead", "start panics"]
    assert leftovers(temporary) == []


def test_one_that_fails_stays_to_be_looked_at(
    hosts: Field, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setenv("FAKE_NIX_HOSTS", "a panics z")
    result = run(hosts, "def test_one(nixos_machine): pass", "--nixos-keep", "failed")
    result.assert_outcomes(passed=2, errors=1)
    (kept,) = leftovers(temporary)
    result.stdout.fnmatch_lines([f"*panics: kept {kept}"])


def test_the_first_failure_ends_what_comes_next(hosts: Field, temporary: Path) -> None:
    boxes(hosts, slow=("b",))
    began_s = time.monotonic()
    result = run(
        hosts, 'def test_it(nixos_machine):\n    wait_for("begin b ahead")\n    assert False', "-x"
    )
    result.assert_outcomes(failed=1)
    assert time.monotonic() - began_s < 40
    assert of(hosts, "a") == ["begin a here", "start a", "stop a"]
    assert of(hosts, "b") == ["begin b ahead", "gave up b"]
    assert leftovers(temporary) == []


@pytest.mark.parametrize("interrupts", ["", "b"], ids=["in a test", "while it is waited for"])
def test_ctrl_c_during_a_start_ahead(hosts: Field, temporary: Path, interrupts: str) -> None:
    boxes(hosts, slow=("b",), interrupts=interrupts)
    test = 'def test_it(nixos_machine):\n    wait_for("begin b ahead")\n'
    test += (
        "    LOG.open('a').write('tested a\\n')\n"
        if interrupts
        else "    raise KeyboardInterrupt\n"
    )
    began_s = time.monotonic()
    assert run(hosts, test).ret == pytest.ExitCode.INTERRUPTED
    assert time.monotonic() - began_s < 40
    assert of(hosts, "b") == ["begin b ahead", "gave up b"]
    assert "stop a" in of(hosts, "a")
    assert leftovers(temporary) == []


def test_a_host_that_no_test_came_to_is_ended(hosts: Field, temporary: Path) -> None:
    test = """
@pytest.fixture
def away(name):
    if name == "b":
        pytest.skip("not here")

def test_it(away, name, nixos_machine):
    if name == "a":
        wait_for("start b")
"""
    run(hosts, test).assert_outcomes(passed=2, skipped=1)
    assert of(hosts, "b") == ["begin b ahead", "start b", "stop b"]
    assert leftovers(temporary) == []


def test_nothing_boots_beside_or_before_a_test_that_measures(hosts: Field) -> None:
    test = """
def test_a(name, nixos_machine): pass
def test_b(name, nixos_machine, nixos_slowness):
    time.sleep(0.3)
    assert "ahead" not in LOG.read_text() or name != "a"
def test_c(name, nixos_machine):
    if name == "a":
        wait_for("begin b ahead")
"""
    run(hosts, test).assert_outcomes(passed=9)


def test_a_host_with_a_judged_budget_boots_alone(hosts: Field) -> None:
    declare(hosts, optionsByPath=BUDGET)
    test = "def test_it(nixos_machine): pass\n"
    run(hosts, f"{test}def test_judged(nixos_machine, nixos_slowness): pass\n")
    assert "ahead" not in hosts.log.read_text()
    hosts.log.unlink()
    run(hosts, test).assert_outcomes(passed=3)
    assert "begin b ahead" in hosts.machine_log


def test_not_where_memory_is_short(hosts: Field) -> None:
    conftest = hosts.pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + "\nmemory.available_bytes = lambda: 1\n")
    run(hosts, "def test_it(nixos_machine): pass").assert_outcomes(passed=3)
    assert "ahead" not in hosts.log.read_text()


def test_not_before_it_is_built(hosts: Field) -> None:
    declare(hosts, output=str(hosts.pytester.path / "missing"))
    run(hosts, "def test_it(nixos_machine): pass").assert_outcomes(passed=3)
    assert "ahead" not in hosts.log.read_text()


def test_workers_have_their_next_host(hosts: Field, temporary: Path) -> None:
    run(hosts, "def test_it(nixos_machine): pass", "-n2").assert_outcomes(passed=3)
    starts = [line for line in hosts.machine_log if line.startswith(("start", "stop"))]
    assert sorted(starts) == ["start a", "start b", "start c", "stop a", "stop b", "stop c"]
    assert leftovers(temporary) == []
