"""What the guest's bash says of a machine at one moment, run here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.generations.links import LOOK, Moment


def looked(journalctl: str) -> Moment:
    """Look at this machine.

    :param journalctl: the body of a function in its place.
    """
    script = f"journalctl() {{ {journalctl}; }}\n{LOOK}"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert not done.stderr
    return Moment.parse(done.stdout)


def test_boot_and_kernel_are_those_that_run() -> None:
    moment = looked("false")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (moment.boot, moment.kernel) == (boot, os.uname().release)


@pytest.mark.parametrize(
    ("said", "cursor"),
    [
        ("echo '-- cursor: s=4fda;i=32b;b=197c'", "s=4fda;i=32b;b=197c"),
        ("echo '-- No entries --'", ""),
        ("echo 'No journal files were found.' >&2; false", ""),
        ("false", ""),
    ],
)
def test_the_cursor_is_what_the_journal_ends_with(said: str, cursor: str) -> None:
    assert looked(said).cursor == cursor
