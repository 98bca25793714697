"""What is told to a program of the guest, and what it says, is not lost."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from pytest_nixos.machine import guest_job
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


def test_what_comes_as_a_look_ends_is_not_lost(here: LocalTransport, tmp_path: Path) -> None:
    # A busy machine, between what dd reads and what it writes.
    slow = f'#!/bin/bash\n{shutil.which("dd")} "$@" >"$0.$$"\nsleep 0.5\ncat "$0.$$"\n'
    (tmp_path / "dd").write_text(slow)
    (tmp_path / "dd").chmod(0o755)
    with GuestProgram(here, "sleep 0.8; echo first; sleep 0.8; echo second") as program:
        assert said(program) == b"first\nsecond\n"
