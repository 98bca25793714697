"""A container's start, beside one of the same system by ``systemd-nspawn`` alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_nixos.local.remove_tree import remove_tree
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.container.boot_notice import BootNotice
from pytest_nixos.machine.container.disk import prepare_root
from tests.bench.cold import CONTROL
from tests.bench.figures import Bar, Sample, Section, at_most
from tests.bench.rig import BOOT_LIMIT_S, EXAMPLE, Plan, RunFailed, overrides, run_pytest, say

_HOST = "container-host"
_RUNS = 5
_GOAL_S, _GOAL_TIMES = 0.5, 1.15
# What a NixOS guest needs where this machine mounts no unified hierarchy of control groups.
_STAGE = """set -eu
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$1"
echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
shift
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 bench /run/systemd/nspawn
exec "$@"
"""
_SWEEP = """mount -t cgroup2 cgroup2 /sys/fs/cgroup
find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +"""


def measure(home: Path, plan: Plan) -> Section:
    toplevel = _built(home)
    say("containers: first run, which evaluates the host")
    _ours_s(home)
    ours_s, bare_s = [], []
    for number in range(plan.count(_RUNS)):
        say(f"containers: start {number + 1}, in turn with systemd-nspawn alone")
        bare_s.append(_bare_s(toplevel))
        ours_s.append(_ours_s(home))
    ours, bare = Sample(values=tuple(ours_s), unit="s"), Sample(values=tuple(bare_s), unit="s")
    times = Sample(values=tuple(a / b for a, b in zip(ours_s, bare_s, strict=True)), unit="times")
    return Section(
        name="containers",
        title="A container's start",
        lead=(
            f"`{_HOST}` of the example flake, warm. Ours: from the spec of the machine to a system that is running with no job queued, with user ids, disk, network and control groups "
            "of its own and its root command channel. Beside it the same toplevel by `systemd-nspawn --private-network` with the store bound into it, to `READY=1` of its systemd."
        ),
        header=("what", "median"),
        rows=(
            ("a container of ours", str(ours)),
            ("`systemd-nspawn` alone", str(bare)),
            ("ours, each against the one before it", str(times)),
        ),
        goals=(
            at_most(
                "a container running",
                ours.median,
                _GOAL_S,
                unit="s",
                reason="the host's own systemd takes what `systemd-nspawn` alone takes",
            ),
            at_most(
                "a container against `systemd-nspawn` alone",
                times.median,
                _GOAL_TIMES,
                unit="times",
                reason="its disk is made, its store mapped to user ids of its own and its network set up",
            ),
        ),
        bars=(
            Bar(label="a container of ours", value=ours.median, ours=True),
            Bar(label="systemd-nspawn alone", value=bare.median, ours=False),
        ),
        bars_title="A container's start",
        bars_unit="s",
    )


def _built(home: Path) -> Path:
    root = ("--gc-root", str(home / "container"))
    argv = [sys.executable, "-m", "pytest_nixos", "build", f".#{_HOST}", *root]
    done = subprocess.run(
        [*argv, *overrides("--override-input")],
        cwd=EXAMPLE, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RunFailed(f"{' '.join(argv)}\n{done.stderr[-6000:]}")
    return Path(done.stdout.strip())


def _ours_s(home: Path) -> float:
    at_s = run_pytest(home, "-k", CONTROL, flakes=(f".#{_HOST}",)).at_s
    return at_s["machine ready"] - at_s["machine wanted"]


def _bare_s(toplevel: Path) -> float:
    """Start the toplevel by systemd-nspawn alone and wait until its systemd has started all."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        root, said = Path(directory) / "root", Path(directory) / "said"
        prepare_root(root, toplevel)
        notice = BootNotice(Path(directory) / "notify")
        group = f"bench-{os.getpid()}"
        environment = {
            "PATH": os.environ["PATH"],
            "TERM": "dumb",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            "NOTIFY_SOCKET": str(notice.path),
        }
        started_s = time.monotonic()
        with (
            said.open("w") as output,
            subprocess.Popen(
                _argv(root, toplevel, group),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            ) as process,
        ):
            ready = poll(
                lambda: notice.has_come() or (False if process.poll() is not None else None),
                deadline=Deadline.after(BOOT_LIMIT_S),
                interval_s=0.01,
            )
            took_s = time.monotonic() - started_s
            process.kill()
        notice.close()
        _sweep(group)
        if not ready:
            raise RunFailed(f"systemd-nspawn: no READY=1\n{said.read_text()[-3000:]}")
        remove_tree(root)
    return took_s


def _argv(root: Path, toplevel: Path, group: str) -> list[str]:
    nspawn = [
        *("systemd-nspawn", f"--directory={root}", "--machine=bench", "--register=no"),
        *("--keep-unit", "--settings=no", "--notify-ready=yes", "--kill-signal=SIGRTMIN+3"),
        *("--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only"),
        *("--private-users=no", "--private-network", "--bind-ro=/nix/store"),
        str(toplevel / "init"),
    ]
    outer = [
        "unshare",
        "--mount",
        "--net",
        "--propagation=private",
        "--",
        "sh",
        "-c",
        _STAGE,
        "bench",
    ]
    inner = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    return [*outer, group, *inner, *nspawn]


def _sweep(group: str) -> None:
    """Remove the control group once the kernel has ended what ran in it."""
    argv = ["unshare", "--mount", "--propagation=private", "--", "sh", "-c", _SWEEP, "bench", group]

    def gone() -> bool | None:
        return None if subprocess.run(argv, check=False, capture_output=True).returncode else True

    poll(gone, deadline=Deadline.after(20.0), interval_s=0.1)
