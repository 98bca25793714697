"""What is told to a program of the guest before its shell has begun is not lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.machine import guest_program
from pytest_nixos.machine.guest_program import GuestProgram
from tests.support.local_transport import LocalTransport

# Says that the unit has started, which it does a moment later.
SYSTEMD_RUN = """#!/bin/bash
while [ "$1" != -- ]; do shift; done
shift
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
        printed, end_s = b"", time.monotonic() + LIMIT_S
        while (part := program.read()) is not None:
            printed += part.stdout
            assert time.monotonic() < end_s, printed

    assert printed == given + b"over\n"
