"""What is run in the container's surroundings before systemd-nspawn, by a real shell, against
directories that look like cgroups: the machines of this project have memory and pids in hierarchies
of version 1.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.machine.container import nspawn

GONE = 2**22 + 1  # no process has such a number (PID_MAX_LIMIT of linux/threads.h)
LIMITS = {"memory.max": "1073741824", "memory.swap.max": "0", "pids.max": "100"}


def make_group(hierarchy: Path, *, has: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run the stage's own lines; a directory that is made has the files of its controllers, as in
    the kernel.
    """
    text = nspawn._STAGE
    part = text[
        text.index('if [ -n "$cgroup" ]') : text.index("mount -t tmpfs -o mode=0755,nosuid")
    ]
    part = part.replace("/sys/fs/cgroup", str(hierarchy)).replace("PREFIX", "pytest-nixos-")
    files = " ".join(has)
    kernel = f'mkdir() {{ command mkdir "$1"; for f in {files}; do echo max >"$1/$f"; done; }}'
    script = f"set -eu\n{nspawn._SWEEP}\n{kernel}\ncgroup=pytest-nixos-1-r memory=1073741824 tasks=100\n{part}"
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)


@pytest.fixture
def hierarchy(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.subtree_control").touch()
    return tmp_path


def test_a_group_has_the_limits_of_memory_swap_and_tasks(hierarchy: Path) -> None:
    done = make_group(hierarchy, has=(*LIMITS, "cgroup.procs"))
    assert done.returncode == 0, done.stderr
    own = hierarchy / "pytest-nixos-1-r"
    assert {name: (own / name).read_text().strip() for name in LIMITS} == LIMITS
    assert (own / "cgroup.procs").read_text().strip().isdecimal()
    assert (hierarchy / "cgroup.subtree_control").read_text().strip() == "+pids"  # the last write


def test_a_machine_whose_controllers_are_elsewhere_gets_a_group_without(hierarchy: Path) -> None:
    done = make_group(hierarchy, has=("cgroup.procs",))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (hierarchy / "pytest-nixos-1-r").iterdir()] == ["cgroup.procs"]


def test_groups_of_dead_sessions_go_and_those_of_living_ones_stay(hierarchy: Path) -> None:
    dead, alive = (hierarchy / f"pytest-nixos-{pid}-x" for pid in ("4194999", os.getpid()))
    for path in (dead, alive):
        (path / "payload/system.slice").mkdir(parents=True)
    assert make_group(hierarchy, has=("cgroup.procs",)).returncode == 0
    assert [dead.exists(), alive.exists()] == [False, True]


@pytest.mark.parametrize(
    ("owner", "populated", "stays"),
    [(GONE, 1, True), (GONE, 0, False), (os.getpid(), 0, True)],
    ids=["gone, with processes", "gone", "there"],
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
    subprocess.run(["sh", "-euc", f"{nspawn._SWEEP}\nsweep {tmp_path}"], check=True)
    assert made.exists() is stays
