"""What is told to a program of the guest, and what it says, is not lost."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine import guest_job
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.guest_program import GuestProgram
from tests.support.local_transport import LocalTransport

LIMIT_S = 30.0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalTransport:
    # Without root there is no control group to divide: here it is a directory without processes.
    (tmp_path / "group").mkdir()
    (tmp_path / "group/cgroup.procs").touch()
    start = guest_job._START.replace("/sys/fs/cgroup", f"{tmp_path}/group").replace("$p/", "/")
    start = start.replace('echo 0 >"$g/cgroup.procs"', ': >"$g/cgroup.procs"')
    monkeypatch.setattr(guest_job, "_START", start)
    monkeypatch.setattr(guest_job, "_RUN", str(tmp_path))
    return LocalTransport({"PATH": f"{tmp_path}:{os.environ['PATH']}"})


@pytest.mark.parametrize("given", [b"", b"a line\n"], ids=["nothing", "a line"])
def test_the_end_of_its_input_comes_before_it_listens(here: LocalTransport, given: bytes) -> None:
    with GuestProgram(here, "cat; echo over") as program:
        if given:
            assert program.write(given) == len(given)
        program.end_input()
        assert said(program) == given + b"over\n"


def said(program: GuestProgram) -> bytes:
    printed, end_s = b"", time.monotonic() + LIMIT_S
    while (part := program.read()) is not None:
        printed += part.stdout
        assert time.monotonic() < end_s, printed
    return printed


def test_dollars_are_the_programs_shells(here: LocalTransport) -> None:
    with GuestProgram(here, "x=5; echo ${x} $x $(($$ > 1)) '$$'") as program:
        assert said(program) == b"5 5 1 $$\n"


def test_a_short_command_has_said_all_when_it_has_started(here: LocalTransport) -> None:
    counted = Counted(here)
    with GuestProgram(counted, "echo out; echo err >&2; exit 3", first_wait_s=LIMIT_S) as program:
        first = program.read()
        assert first is not None
        rest = b"" if first.has_ended else said(program)
        assert (first.stdout + rest, counted.trips) == (b"out\n", 1 if first.has_ended else 2)
    assert program.exit_status == 3


def test_what_is_printed_later_than_the_start_waits_is_not_lost(here: LocalTransport) -> None:
    command = "echo first; sleep 0.5; echo second; sleep 0.5; echo third"
    with GuestProgram(here, command, first_wait_s=0.2) as program:
        assert said(program) == b"first\nsecond\nthird\n"


def test_a_program_that_waits_for_its_input_gets_it_after_its_start(here: LocalTransport) -> None:
    with GuestProgram(here, "read -r line; echo $line", first_wait_s=0.1) as program:
        assert program.write(b"typed\n") == 6
        assert said(program) == b"typed\n"


class Counted:
    """A transport that counts its trips."""

    def __init__(self, inner: LocalTransport) -> None:
        self._inner = inner
        self.trips = 0

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        self.trips += 1
        return self._inner.run(command, deadline=deadline, stdin=stdin)

    def close(self) -> None:
        self._inner.close()


def test_what_comes_as_a_look_ends_is_not_lost(here: LocalTransport, tmp_path: Path) -> None:
    # A busy machine, between what dd reads and what it writes.
    slow = f'#!/bin/bash\n{shutil.which("dd")} "$@" >"$0.$$"\nsleep 0.5\ncat "$0.$$"\n'
    (tmp_path / "dd").write_text(slow)
    (tmp_path / "dd").chmod(0o755)
    with GuestProgram(here, "sleep 0.8; echo first; sleep 0.8; echo second") as program:
        assert said(program) == b"first\nsecond\n"
