"""The command line at the edges of a terminal: nobody reads, nothing to read, the window is closed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

COMMAND = f"'{sys.executable}' -m pytest_nixos"
LIMIT_S = 60


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_where_nobody_reads_it_ends_without_a_word() -> None:
    words = [sys.executable, "-m", "pytest_nixos", "controls"]
    command = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert command.stdout is not None
    command.stdout.close()
    assert command.stderr is not None
    assert command.stderr.read() == b""
    assert command.wait(LIMIT_S) == 141
    command.stderr.close()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_a_missing_stream_is_an_empty_one(closed: str) -> None:
    done = shell(f"{COMMAND} controls BOOT-001 {closed}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_signal_reaches_what_runs_the_machine() -> None:
    spawn = (
        "from pytest_nixos.cli.by_hand import _spawned;"
        "script = 'trap \"exit 7\" TERM; echo up >&9; sleep 60 & wait';"
        "raise SystemExit(_spawned(['/bin/bash', '-c', script], {}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", spawn], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(LIMIT_S) == 7
    parent.stdout.close()
