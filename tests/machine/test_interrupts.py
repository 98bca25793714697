"""Ctrl-C and SIGTERM in each phase: nothing stays, and a second run works at once.

Every process of a session carries a variable of its own in its environment; what still does
afterwards has leaked.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import processes_with

EXAMPLE = Path(__file__).parents[2] / "example-flake"
OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))
LIMIT_S = 600
MARK = "PYTEST_NIXOS_INTERRUPT_TEST"

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

SLEEPER = """
import time
from pathlib import Path

def test_sleeps(nixos_machine):
    Path("{started}").touch()
    nixos_machine.run("sleep 60", timeout_s=90)
"""

CLUSTER = """
from pathlib import Path

def test_sleeps(nixos_cluster):
    nixos_cluster("nats-1", "nats-2", backend="vm")
    Path("{started}").touch()
"""


def survivors(mark: str) -> list[str]:
    return [process.line[:200] for process in processes_with(f"{MARK}={mark}")]


def descendants(pid: int) -> list[str]:
    """Return the command lines of what a process has started, and what that has."""
    parents: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(process.name))
    found, left = [], [pid]
    while left:
        for child in parents.get(left.pop(), ()):
            left.append(child)
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace"))
    return found


def run_directories() -> set[str]:
    return {str(path) for path in Path(tempfile.gettempdir()).glob("pytest-nixos-*")}


class Session:
    """One run of pytest on an example host, marked so that its processes can be found."""

    def __init__(self, host: str, directory: Path, *arguments: str, sleeper: str = SLEEPER) -> None:
        self.mark = uuid.uuid4().hex
        self.started = directory / f"started-{self.mark}"
        test = directory / f"test_sleeper_{self.mark}.py"
        test.write_text(sleeper.format(started=self.started))
        overrides = [
            w for name, ref in OVERRIDES.items() for w in ("--nixos-override-input", name, ref)
        ]
        self.process = subprocess.Popen(
            [
                # Who started the tests in the background has Ctrl-C ignored (POSIX, "sh").
                *("env", "--default-signal=INT"),
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(test)),
                *("--nixos-flake", f"{EXAMPLE}#{host}", *overrides, *arguments),
            ],
            cwd=directory,
            env={**os.environ, MARK: self.mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_until(self, reached: Callable[[], bool]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not reached():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < end_s, "the phase was not reached"
            time.sleep(0.05)

    def has_child(self, word: str) -> bool:
        return any(word in command.split(" ")[0] for command in survivors(self.mark))

    def is_booting(self, before: set[str]) -> bool:
        """Whether a machine's own process (QEMU, systemd-nspawn) runs."""
        return bool(self.directories(before))

    def directories(self, before: set[str]) -> list[str]:
        """Return the run directories of machines that run: their command lines name them."""
        commands = descendants(self.process.pid)
        machines = [c for c in commands if "qemu" in c or "nspawn" in c]
        return [d for d in run_directories() - before if any(d in c for c in machines)]

    def end(self, number: signal.Signals) -> str:
        os.killpg(self.process.pid, number)
        return self.process.communicate(timeout=120)[0]


@pytest.mark.parametrize(
    ("host", "phase", "number"),
    [
        ("container-host", "evaluate", signal.SIGINT),
        ("container-host", "boot", signal.SIGINT),
        ("container-host", "boot", signal.SIGTERM),
        ("container-host", "test", signal.SIGINT),
        ("container-host", "test", signal.SIGTERM),
        ("edge.lab-1", "boot", signal.SIGINT),
        ("edge.lab-1", "boot", signal.SIGTERM),
        ("edge.lab-1", "test", signal.SIGINT),
    ],
)
def test_interrupted_run_leaves_nothing(
    host: str, phase: str, number: signal.Signals, tmp_path: Path
) -> None:
    before = run_directories()
    session = Session(host, tmp_path)
    reached: dict[str, Callable[[], bool]] = {
        "evaluate": lambda: session.has_child("nix"),
        "boot": lambda: session.is_booting(before),
        "test": session.started.exists,
    }
    session.wait_until(reached[phase])
    printed = session.end(number)
    end_s = time.monotonic() + 15
    while survivors(session.mark) and time.monotonic() < end_s:
        time.sleep(0.1)
    assert survivors(session.mark) == [], printed
    assert run_directories() <= before, printed
    assert session.process.returncode == pytest.ExitCode.INTERRUPTED, printed
    assert "INTERNALERROR" not in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_cluster_that_boots_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    before = run_directories()
    session = Session("nats-1", tmp_path, "--nixos-snapshot", "off", sleeper=CLUSTER)
    session.wait_until(lambda: session.is_booting(before))
    directories = session.directories(before)
    began_s = time.monotonic()
    printed = session.end(number)
    took_s = time.monotonic() - began_s
    assert session.process.returncode == pytest.ExitCode.INTERRUPTED, printed
    assert took_s < 15, printed
    assert survivors(session.mark) == [], printed
    assert directories and not any(Path(d).exists() for d in directories), printed
    assert not session.started.exists()


def test_second_run_works_at_once_after_sigkill(tmp_path: Path) -> None:
    before = run_directories()
    session = Session("container-host", tmp_path)
    session.wait_until(session.started.exists)
    os.kill(session.process.pid, signal.SIGKILL)
    session.process.communicate(timeout=60)
    again = Session("container-host", tmp_path)
    again.wait_until(again.started.exists)
    again.end(signal.SIGINT)
    assert survivors(session.mark) == [] == survivors(again.mark)
    assert run_directories() <= before
