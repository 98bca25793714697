"""The server in the guest under an environment that the guest has made hostile: what it runs at a
login is the guest's own text.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from tests.support.processes import processes_with
from tests.unit.machine.channel.test_transport import Guest, started, started_with_pipes


@pytest.fixture(params=["virtserialports", "named pipes"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    start = started if request.param == "virtserialports" else started_with_pipes
    with tempfile.TemporaryDirectory() as directory:
        try:
            yield from start(Path(directory))
        finally:
            _end_what_is_left(directory)


def _end_what_is_left(directory: str) -> None:
    """End what the guest's text has started: in a guest the service manager does."""
    for process in processes_with(f"PYTEST_NIXOS_TEST_LEFT={directory}"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "text",
    [
        "exit 1",
        "exec sleep 1000",
        "while :; do :; done",
        "kill -STOP $BASHPID",
        "kill -KILL $BASHPID",
        "set -e; false",
        "exec >/dev/null 2>&1 <&-",
        "printf() { :; }; read() { return 1; }; eval() { :; }",
        "readonly PATH pn_text pn_serial pn_session",
        "trap 'sleep 1000' EXIT; trap '' TERM INT HUP",
        "shopt -s expand_aliases extdebug; trap 'sleep 0.1' DEBUG",
        "yes",
        "export PATH=/nowhere",
        "ulimit -n 3; ulimit -u 1",
        "cd /; rm -f /proc/self/fd/* 2>/dev/null; exec {pn_wire}>&-",
    ],
)
def test_what_the_guest_runs_at_a_login_cannot_hold_us_up(guest: Guest, text: str) -> None:
    """Each command ends in time: with an answer, or with an error of the channel."""
    # By this variable, what it starts is found again and ended.
    mark = f"export PYTEST_NIXOS_TEST_LEFT={guest.run_dir}"
    (guest.run_dir / "new").write_text(f"{mark}\n{text}\n")
    (guest.run_dir / "new").rename(guest.run_dir / "set-environment")
    started_s = time.monotonic()
    for _ in range(2):
        with contextlib.suppress(TransportError):
            guest.channel.run("echo alive", deadline=Deadline.after(2))
    # Two limits, and for each the grace that a busy guest has to kill its command.
    assert time.monotonic() - started_s < 2 * (2 + 10) + 10
