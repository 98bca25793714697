"""Ctrl-C and SIGTERM in each phase: nothing stays, and a second run works at once.

Every process of a session carries a variable of its own in its environment; what still does
afterwards has leaked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

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


def survivors(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        except OSError:
            continue
    return found


def holders(directory: str) -> list[str]:
    """Return the machines' own processes (QEMU, systemd-nspawn) that work in a run directory."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if directory in command and ("qemu" in command or "nspawn" in command):
            found.append(command[:200])
    return found


def run_directories() -> set[str]:
    return {str(path) for path in Path("/tmp").glob("pytest-nixos-*")}


class Session:
    """One run of pytest on an example host, marked so that its processes can be found."""

    def __init__(self, host: str, directory: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.started = directory / f"started-{self.mark}"
        test = directory / f"test_sleeper_{self.mark}.py"
        test.write_text(SLEEPER.format(started=self.started))
        overrides = [
            w for name, ref in OVERRIDES.items() for w in ("--nixos-override-input", name, ref)
        ]
        self.process = subprocess.Popen(
            [
                # Who started the tests in the background has Ctrl-C ignored (POSIX, "sh").
                *("env", "--default-signal=INT"),
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(test)),
                *("--nixos-flake", f"{EXAMPLE}#{host}", *overrides),
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
        """Whether a machine's process runs: its command line names the run directory."""
        return any(holders(directory) for directory in run_directories() - before)

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
