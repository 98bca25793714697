"""``--nixos-watch``: what runs again after which change, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.run_signals import RunSignals
from pytest_nixos.local.timing import Deadline
from pytest_nixos.plugin.watch import ready
from pytest_nixos.plugin.watch.ready import ReadyRun
from tests.plugin.field import Field
from tests.support.processes import processes_with
from tests.unit.host_documents import document, fact

LIMIT_S = 60
WAITING = "waiting for a change of "
MARK = "WATCH_TEST_MARK"
TESTS = """
def test_config(nixos_host_config): assert nixos_host_config.host_name
def test_machine(nixos_machine): assert nixos_machine.run("echo hi").stdout == b"hi\\n"
"""
SUITE = """
suite = "house"
title = "House rules"
description = "What we ask of every host."
"""
CONTROL = """
[[control]]
id = "{id}"
title = "{option} is on"
severity = "LOW"
threat = "It is off."
remedy = "{option} = true;"
declared = {{ option = "{option}" }}
expect = {{ op = "eq", value = true }}
"""
PROFILE = """
profile = "all"
title = "All"
description = "All of them."

[select]
suites = ["house"]
controls = ["FLK-010"]
"""


class Watched:
    """A watching pytest on a terminal, as a user has it."""

    def __init__(self, field: Field, *arguments: str) -> None:
        self.directory = field.pytester.path
        self.mark = uuid.uuid4().hex
        (self.directory / "tmp").mkdir()
        self.terminal = pexpect.spawn(
            sys.executable,
            [
                *("-m", "pytest", "-p", "no:cacheprovider", "--nixos-watch"),
                *("--nixos-flake=.#web", *(arguments or ("--nixos-suite=none",))),
            ],
            cwd=self.directory,
            env={**os.environ, MARK: self.mark, "TMPDIR": str(self.directory / "tmp")},
            timeout=LIMIT_S,
            encoding="utf-8",
            dimensions=(24, 300),
        )

    def run(self) -> str:
        """Wait for the end of a run, and return what it said."""
        self.terminal.expect_exact(WAITING)
        return str(self.terminal.before)

    def change(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def change_host(self, options: dict[str, object] | None = None, **facts: object) -> None:
        """Let the host evaluate to something else, as its flake says by now."""
        changed = document()
        changed["facts"] |= {name: fact(value) for name, value in facts.items()}
        changed["optionsByPath"] = options or {}
        self.change("document.json", json.dumps(changed))
        self.change("flake.nix", f"{{ }} # {uuid.uuid4()}")

    def ready(self) -> int:
        """Return the process id of the run that waits."""
        end_s = time.monotonic() + LIMIT_S
        while True:
            for process in processes_with(f"{MARK}={self.mark}"):
                if "watch.ready" in process.line:
                    return process.pid
            assert time.monotonic() < end_s
            time.sleep(0.05)

    def notes(self) -> list[Path]:
        """Return the directories of notes that this session left."""
        made = self.directory / "tmp"
        return list(made.glob("nixos-watch-*"))

    def end(self) -> int:
        """Type Ctrl-C and return the exit status."""
        self.terminal.sendintr()
        self.terminal.expect(pexpect.EOF)
        self.terminal.close()
        assert self.terminal.exitstatus is not None
        return int(self.terminal.exitstatus)


def left_of(mark: str) -> list[str]:
    """Return the command lines of a session's processes."""
    return [process.line for process in processes_with(f"{MARK}={mark}")]


@pytest.fixture
def repository(field: Field) -> Field:
    """The flake in a git repository, which tracks no more than the flake and the tests."""
    field.pytester.makepyfile(test_it=TESTS)
    field.pytester.path.joinpath("notes.txt").write_text("a")
    git = ("git", "-C", str(field.pytester.path))
    for words in (("init", "-q"), ("add", "flake.nix", "test_it.py", "notes.txt")):
        subprocess.run([*git, *words], check=True)
    return field


@pytest.fixture
def watch(repository: Field) -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []

    def start(*arguments: str) -> Watched:
        started.append(Watched(repository, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.terminal.close(force=True)


def test_changes_of_the_flake_one_after_the_other(
    repository: Field, watch: Callable[..., Watched]
) -> None:
    session = watch()
    assert "2 passed" in session.run()

    session.change_host(host_name="other")
    said = session.run()
    assert "nixos-watch: flake.nix changed" in said
    assert "web: has changed: 2 run again" in said
    assert "2 passed" in said
    assert repository.machine_log == ["start web", "stop web"] * 2

    session.change("flake.nix", "{ } # a comment")
    said = session.run()
    as_before = "web: the system and all that is declared are as before"
    assert f"{as_before}: nothing runs again, 2 stand as they were" in said
    assert "2 deselected" in said
    assert repository.machine_log == ["start web", "stop web"] * 2

    session.change("document.json", "")
    session.change("flake.nix", "{")
    said = session.run()
    assert said.count("ERROR") == 1, said
    assert "passed" not in said

    session.change_host(host_name="mended")
    assert "web: has changed: 2 run again" in session.run()

    assert session.end() == pytest.ExitCode.INTERRUPTED
    assert not left_of(session.mark)
    assert not session.notes()


def test_a_flake_that_is_broken_at_first_is_watched_and_git_says_what_it_is(
    repository: Field, watch: Callable[..., Watched]
) -> None:
    (repository.pytester.path / "document.json").write_text("")
    session = watch()
    assert "ERROR" in session.run()
    session.change("untracked.nix", "{ }")
    with pytest.raises(pexpect.TIMEOUT):
        session.terminal.expect("changed", timeout=1.5)
    session.change_host()
    assert "2 passed" in session.run()
    subprocess.run(["git", "add", "untracked.nix"], cwd=session.directory, check=True)
    session.terminal.expect_exact("untracked.nix changed")


def test_own_tests_their_data_and_what_was_not_reached(
    repository: Field, watch: Callable[..., Watched]
) -> None:
    repository.pytester.makepyfile(test_more="def test_more(nixos_machine): pass")
    session = watch("--nixos-suite=none", "test_it.py", "test_more.py", "-x")
    assert "3 passed" in session.run()
    session.change("test_it.py", TESTS.replace("assert", "assert not", 1))
    said = session.run()
    assert "as before: 2 run again, 1 stand as they were" in said
    assert "1 failed" in said
    # The one behind the failure was not reached, and is owed.
    session.change("flake.nix", "{ } # a comment")
    said = session.run()
    assert "as before: 1 run again, 2 stand as they were (1 of them failed)" in said
    session.change("notes.txt", "b")
    assert "3 run again" in session.run()


def test_what_a_changed_file_may_mean_to_a_test_runs_again(
    repository: Field, watch: Callable[..., Watched]
) -> None:
    repository.pytester.makepyfile(
        test_shared="WANTED = b'hi'\ndef test_shared(nixos_host_config): pass",
        test_user="from test_shared import WANTED\ndef test_user(nixos_host_config): assert WANTED == b'hi'",
        test_text="from pathlib import Path\ndef test_text(): assert 'TODO' not in Path('flake.nix').read_text()",
    )
    (repository.pytester.path / "waived").write_text("waiver = []")
    subprocess.run(["git", "add", "test_shared.py"], cwd=repository.pytester.path, check=True)
    session = watch("--nixos-waivers=waived", "test_it.py", "test_user.py", "test_text.py")
    assert "4 passed" in session.run()
    # A test without a host reads what it likes, what Nix reads too.
    session.change("flake.nix", "{ } # TODO")
    said = session.run()
    assert (
        "tests without a host: the system and all that is declared are as before: 1 run again"
        in said
    )
    assert "1 failed" in said
    # What a test module is to others is a helper's part.
    session.change("flake.nix", "{ } # done")
    assert "1 passed" in session.run()
    session.change("test_shared.py", "WANTED = b'ho'")
    said = session.run()
    assert "1 failed" in said
    # A file that an option names, whatever it is called.
    session.change("waived", "waiver = [ ]")
    said = session.run()
    assert "as before: 3 run again" in said
    assert "1 failed, 3 passed" in said


def test_workers_leave_out_the_same(repository: Field, watch: Callable[..., Watched]) -> None:
    session = watch("--nixos-suite=none", "-n1")
    assert "2 passed" in session.run()
    session.change("flake.nix", "{ } # a comment")
    assert "nixos: nothing runs again, 2 stand as they were" in session.run()
    assert repository.machine_log == ["start web", "stop web"]


def test_changed_controls_run_first_and_source_readers_always(
    repository: Field, watch: Callable[..., Watched]
) -> None:
    directory = repository.pytester.mkdir("house")
    options = {"HOUSE-001": "a.x", "HOUSE-002": "b.x", "HOUSE-003": "c.x", "HOUSE-004": "d.x"}
    (directory / "house.toml").write_text(
        SUITE + "".join(CONTROL.format(id=key, option=option) for key, option in options.items())
    )
    (directory / "profiles").mkdir()
    (directory / "profiles" / "all.toml").write_text(PROFILE)
    on: dict[str, object] = dict.fromkeys(options.values(), True)
    session = watch("--nixos-catalogue=house", "--nixos-profile=all", "-v")
    session.change_host(on | {"b.x": False})
    session.run()
    session.change_host(on | {"b.x": False, "d.x": False})
    order = re.findall(r"(\w+-\d+)\S* (?:PASSED|FAILED|SKIPPED)", session.run())
    # What changed, what failed before, and the others.
    assert order[:2] == ["HOUSE-004", "HOUSE-002"]
    assert sorted(order[2:]) == ["FLK-010", "HOUSE-001", "HOUSE-003"]
    session.change("flake.nix", "{ } # a comment")
    said = session.run()
    assert "as before: 1 run again, 6 stand as they were (2 of them failed)" in said


def test_ctrl_c_in_a_run_ends_its_machine(repository: Field, watch: Callable[..., Watched]) -> None:
    repository.pytester.makepyfile(
        test_it="import time\ndef test_it(nixos_machine): print('now', flush=True); time.sleep(60)"
    )
    session = watch("--nixos-suite=none", "-s")
    session.terminal.expect_exact("now")
    started_s = time.monotonic()
    assert session.end() == pytest.ExitCode.INTERRUPTED
    assert time.monotonic() - started_s < 10
    assert repository.machine_log == ["start web", "stop web"]
    assert not left_of(session.mark)


def test_the_next_run_is_ready_and_reads_what_is_there_then(
    repository: Field, watch: Callable[..., Watched]
) -> None:
    session = watch("--nixos-suite=none", "-W", "error::pytest.PytestAssertRewriteWarning")
    assert "2 passed" in session.run()
    first = session.ready()
    # Neither of these was there when that process began.
    conftest = repository.pytester.path / "conftest.py"
    backend = conftest.read_text()
    conftest.write_text("raise RuntimeError('read')")
    session.change_host(host_name="other")
    assert "RuntimeError: read" in session.run()
    conftest.write_text(backend)
    # One that is gone is in nobody's way.
    os.kill(session.ready(), signal.SIGKILL)
    session.change_host(host_name="third")
    assert "2 passed" in session.run()
    assert session.ready() != first
    assert session.end() == pytest.ExitCode.INTERRUPTED
    assert not left_of(session.mark)


def test_what_a_ready_run_may_have_imported_is_imported_anew() -> None:
    package = Path(ready.__file__).parents[2]
    assert ReadyRun.is_stale([Path("/f/flake.nix"), package / "plugin" / "collect.py"])
    assert ReadyRun.is_stale([Path("/f/venv/lib/python3/site-packages/msgspec/__init__.py")])
    assert not ReadyRun.is_stale([Path("/f/conftest.py"), Path("/f/flake.nix")])


def test_a_signal_while_a_process_is_forked_is_not_lost() -> None:
    """CPython prints what is raised in handlers of a fork, and goes on; each look may ask git."""
    wanted = [True]

    def interrupt() -> None:
        if wanted:
            wanted.clear()
            signal.raise_signal(signal.SIGINT)

    os.register_at_fork(after_in_parent=interrupt)
    with RunSignals() as signals:
        SubprocessRunner().run(("true",), deadline=Deadline.after(60))
    assert not wanted
    assert signals.came == [signal.SIGINT]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_without_a_terminal_end_it_too(repository: Field, number: signal.Signals) -> None:
    repository.pytester.makepyfile(
        test_it="import time\ndef test_it(nixos_machine): print('now', flush=True); time.sleep(60)"
    )
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider"),
            *("--nixos-watch", "--nixos-flake=.#web", "--nixos-suite=none"),
        ],
        cwd=repository.pytester.path,
        env={**os.environ, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert any("now" in line for line in process.stdout)
        process.send_signal(number)
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert repository.machine_log == ["start web", "stop web"]
    assert not left_of(mark)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nixos-report=json:r.json", "--nixos-flake=."), "does not go with --nixos-report"),
        (("--nixos-record=r", "--nixos-flake=."), "does not go with --nixos-record"),
        (("--nixos-flake=github:a/b#web",), "nothing of github:a/b lies on this machine"),
        ((), "no host is named"),
        (("--nixos-flake=.", "--nixos-fail-on=nonsense"), "got 'nonsense'"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    field: Field, arguments: tuple[str, ...], said: str
) -> None:
    result = field.run("--nixos-watch", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()
