"""Processes of the host machine, for real."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.local import command_process
from pytest_nixos.local.command_process import CommandProcess
from pytest_nixos.local.process import ProcessTimeout, SubprocessRunner, die_with_parent
from pytest_nixos.local.timing import Deadline


def test_the_most_memory_of_a_process_is_measured() -> None:
    program = "b = bytearray(300 << 20); b[::4096] = b'x' * len(b[::4096]); print(len(b))"
    done = SubprocessRunner().run((sys.executable, "-c", program), deadline=Deadline.after(60))
    assert done.exit_status == 0
    assert done.peak_bytes is not None
    assert 300 << 20 < done.peak_bytes < 600 << 20


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", -9)])
def test_how_it_ended(script: str, status: int) -> None:
    done = SubprocessRunner().run(("/bin/sh", "-c", script), deadline=Deadline.after(60))
    assert done.exit_status == status


def test_one_that_closes_its_streams_and_stays_is_ended() -> None:
    script = "exec >&- 2>&-; exec sleep 60"
    with pytest.raises(ProcessTimeout, match="still running after 1 s"):
        SubprocessRunner().run(("/bin/sh", "-c", script), deadline=Deadline.after(1))


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Inherit orphans, as process 1 of a container does (``docker run IMAGE pytest``)."""
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)
    yield
    libc.prctl(36, 0, 0, 0, 0)


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.usefixtures("subreaper")
def test_no_child_of_a_killed_command_stays_as_a_zombie_of_process_1() -> None:
    before = _children()
    script = "(trap '' TERM; sleep 100) & sleep 100 & sleep 100"
    with pytest.raises(ProcessTimeout):
        SubprocessRunner().run(("/bin/sh", "-c", script), deadline=Deadline.after(0.3))
    with CommandProcess(("/bin/sh", "-c", script), {"PATH": os.environ["PATH"]}, b"") as process:
        assert not process.communicate(Deadline.after(0.3))
        process.kill()
    assert _children() == before


def test_output_without_end_is_bounded_and_its_command_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_process, "_MOST_OUTPUT", 8 << 20)
    argv = ("/bin/sh", "-c", "echo $$ >&2; exec yes")
    process = CommandProcess(argv, {"PATH": os.environ["PATH"]}, b"")
    with pytest.raises(TransportError, match="printed more than 8 MiB"), process:
        process.communicate(Deadline.after(30))
    assert len(process.stdout) < 12 << 20


def test_a_child_whose_parent_died_before_it_could_ask_ends_itself() -> None:
    """It would go on in a directory that the next session removes."""
    done = subprocess.run(
        ["sleep", "30"], check=False, preexec_fn=lambda: die_with_parent(os.getpid())
    )
    assert done.returncode == -signal.SIGKILL


START_ON_PIPES = """
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline

def start():
    SubprocessRunner().run(["sleep", "60"], deadline=Deadline.after(20))
"""
START_ON_A_TERMINAL = """
from pathlib import Path
from pytest_nixos.local.process import start_on_terminal

def start():
    start_on_terminal(["sleep", "60"], env=dict(os.environ), cwd=Path("/"))
"""


@pytest.mark.parametrize("start", [START_ON_PIPES, START_ON_A_TERMINAL], ids=["pipes", "terminal"])
def test_an_interrupt_during_a_fork_is_not_lost(start: str) -> None:
    """It came in a fork handler of Python's own, which only prints what is raised there."""
    script = f"""
import os, signal
{start}
def handler():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

os.register_at_fork(after_in_parent=handler)
try:
    start()
except KeyboardInterrupt:
    print("interrupted")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("nothing left")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n") == ["interrupted", "nothing left", ""]
    assert done.stderr == ""
