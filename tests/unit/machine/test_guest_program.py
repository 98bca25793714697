"""What is told to a program of the guest, and what it says, is not lost."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.machine import guest_program
from pytest_nixos.machine.guest_program import GuestProgram
from tests.support.local_transport import LocalTransport

# Says that the unit has started, which it does a moment later. Of the words "$$" and "${...}" are
# systemd's own, systemd.service(5).
SYSTEMD_RUN = """#!/bin/bash
while [ "$1" != -- ]; do shift; done
shift
shopt -s extglob
set -- "${@//'${'+([a-zA-Z0-9_#%*\\/])'}'}"
set -- "${@//'$$'/'$'}"
setsid bash -c 'sleep 0.7; exec "$@"' bash "$@" >/dev/null 2>&1 </dev/null &
echo $! >"$UNIT"
"""
LIMIT_S = 30.0


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalTransport]:
    for name, text in {"systemd-run": SYSTEMD_RUN, "systemctl": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    start = guest_program._START.replace("/run/pytest-nixos-program", f"{tmp_path}/program")
    monkeypatch.setattr(guest_program, "_START", start)
    path = f"{tmp_path}:{os.environ['PATH']}"
    yield LocalTransport({"PATH": path, "UNIT": str(tmp_path / "unit")})
    # Here systemctl stops nothing.
    os.kill(int((tmp_path / "unit").read_text()), signal.SIGKILL)


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


def test_dollars_are_the_shells_and_not_systemds(here: LocalTransport) -> None:
    with GuestProgram(here, "x=5; echo ${x} $x $(($$ > 1)) '$$'") as program:
        assert said(program) == b"5 5 1 $$\n"


def test_what_comes_as_a_look_ends_is_not_lost(here: LocalTransport, tmp_path: Path) -> None:
    # A busy machine, between what dd reads and what it writes.
    slow = f'#!/bin/bash\n{shutil.which("dd")} "$@" >"$UNIT.$$"\nsleep 0.5\ncat "$UNIT.$$"\n'
    (tmp_path / "dd").write_text(slow)
    (tmp_path / "dd").chmod(0o755)
    with GuestProgram(here, "sleep 0.8; echo first; sleep 0.8; echo second") as program:
        assert said(program) == b"first\nsecond\n"
