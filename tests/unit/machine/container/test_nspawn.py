"""What is run in the container's surroundings before systemd-nspawn, by a real shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.machine.container.nspawn import _SWEEP

GONE = 2**22 + 1  # no process has such a number (PID_MAX_LIMIT of linux/threads.h)


@pytest.mark.parametrize(
    ("owner", "populated", "stays"),
    [(GONE, 1, True), (GONE, 0, False), (os.getpid(), 0, True)],
)
def test_cgroups_of_a_session_that_is_not_seen_here_stay_while_they_have_processes(
    tmp_path: Path, owner: int, populated: int, *, stays: bool
) -> None:
    """In another process namespace (a bare root, a CI container) it has another number: the groups
    that its guest was just making were taken away.
    """
    group = tmp_path / f"pytest-nixos-{owner}-web"
    made = group / "payload" / "new.service"
    made.mkdir(parents=True)
    # In a real cgroup such a file does not keep its directory.
    (group / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
    subprocess.run(["sh", "-euc", f"{_SWEEP}\nsweep {tmp_path}"], check=True)
    assert made.exists() is stays
