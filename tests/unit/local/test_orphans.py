"""Process 1 of a container inherits what the commands that it kills leave behind, and reaps it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# A subreaper inherits orphans as process 1 does (PR_SET_CHILD_SUBREAPER, prctl(2)).
SCRIPT = """
import ctypes, os, time
if os.getpid() != 1:
    ctypes.CDLL(None).prctl(36, 1)
from pytest_nixos.local.process import ProcessTimeout, SubprocessRunner
from pytest_nixos.local.timing import Deadline
try:
    SubprocessRunner().run(["sh", "-c", "sleep 60 & sleep 60 & sleep 60"], deadline=Deadline.after(0.5))
except ProcessTimeout:
    pass
time.sleep(0.2)
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    except OSError:
        continue
    if fields[1] == str(os.getpid()):
        print(pid, fields[0])
"""


def test_a_killed_commands_children_are_no_zombies() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root and util-linux"
)
def test_as_process_1_of_a_namespace_nothing_stays() -> None:
    """As ``docker run IMAGE pytest`` is."""
    done = subprocess.run(
        [
            *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *(sys.executable, "-c", f"import os; assert os.getpid() == 1\n{SCRIPT}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
