"""What is told to a program of the guest before its shell has begun is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine import guest_program
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.guest_program import GuestProgram

# Says that the unit has started, which it does a moment later.
SYSTEMD_RUN = """#!/bin/bash
while [ "$1" != -- ]; do shift; done
shift
( sleep 0.7; exec "$@" ) >/dev/null 2>&1 </dev/null &
echo $! >"$UNIT"
"""
LIMIT_S = 30.0


class Here:
    """Runs commands on this machine."""

    def __init__(self, programs: Path) -> None:
        self._env = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "UNIT": str(programs / "unit"),
        }

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        done = subprocess.run(
            ["bash", "-c", command],
            input=stdin,
            capture_output=True,
            timeout=deadline.remaining_s,
            check=False,
            env=self._env,
        )
        return CommandResult(
            command=command,
            exit_status=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.0,
        )

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    for name, text in {"systemd-run": SYSTEMD_RUN, "systemctl": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    start = guest_program._START.replace("/run/pytest-nixos-program", f"{tmp_path}/program")
    monkeypatch.setattr(guest_program, "_START", start)
    yield Here(tmp_path)
    # Here systemctl stops nothing.
    os.kill(int((tmp_path / "unit").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("given", [b"", b"a line\n"], ids=["nothing", "a line"])
def test_the_end_of_its_input_comes_before_it_listens(here: Here, given: bytes) -> None:
    with GuestProgram(here, "cat; echo over") as program:
        if given:
            assert program.write(given) == len(given)
        program.end_input()
        printed, end_s = b"", time.monotonic() + LIMIT_S
        while (part := program.read()) is not None:
            printed += part.stdout
            assert time.monotonic() < end_s, printed

    assert printed == given + b"over\n"
