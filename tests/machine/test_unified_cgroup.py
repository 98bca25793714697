"""Containers on a machine with cgroup v2 and systemd as process 1: a VM is that machine.

The package itself runs in the guest, on the guest's own Python, and starts containers there: in a
scope of the guest's systemd, and in a cgroup of its own where no systemd-run is found.
``PYTEST_NIXOS_VM_SYSTEM`` and ``PYTEST_NIXOS_CONTAINER_TOPLEVEL`` are what
:mod:`tests.machine.test_vm_boot` and :mod:`tests.machine.test_container_boot` need; the VM shares
this machine's store.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.vm.running import VmRunning
from tests.machine.test_vm_boot import SYSTEM, start

TOPLEVEL = os.environ.get("PYTEST_NIXOS_CONTAINER_TOPLEVEL", "")
LIMIT_S = 900

pytestmark = pytest.mark.skipif(
    not SYSTEM or not TOPLEVEL,
    reason="needs PYTEST_NIXOS_VM_SYSTEM and PYTEST_NIXOS_CONTAINER_TOPLEVEL",
)

# Runs in the guest. The guest's Nix database does not know the toplevel, and a 9p share cannot map
# owners: both are this test's own, so the closure is not registered and the container's root is the
# guest's.
INSIDE = r"""
import json, os, shutil, subprocess, sys, time, types
from pathlib import Path
from pytest_nixos.errors import NixosError
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.container import limits, strategy
from pytest_nixos.machine.container.backend import ContainerBackend
from pytest_nixos.nix.declared import Declared

strategy.load_closure = lambda *_, **__: None
strategy._TOOLS.pop("nix-store")
limits._TASKS = 200
if sys.argv[2] == "own group":
    really = shutil.which
    shutil.which = lambda name, *a, **k: None if name == "systemd-run" else really(name, *a, **k)
host = types.SimpleNamespace(
    name="web", vm=None, units={}, option=lambda path: Declared(path=path, state="absent")
)
found = {}
with run_directory() as directory:
    spec = MachineSpec(
        host=host, system=Path(sys.argv[1]), run_dir=directory.path, boot_timeout_s=400, memory_mib=160
    )
    machine = ContainerBackend(root_is_machine_root=True).start(spec, deadline=Deadline.after(400))
    try:
        def run(command, limit_s=90):
            try:
                return machine.transport.run(command, deadline=Deadline.after(limit_s)).exit_status
            except NixosError as err:
                return str(err)
        group = machine._launched.guest_cgroup()
        own = group.parent
        found["cgroup"] = Path(f"/proc/{machine.pid}/cgroup").read_text().strip()
        for name in ("memory.max", "memory.swap.max", "pids.max"):
            found[name] = (own / name).read_text().strip() if (own / name).exists() else "absent"
        found["tasks"] = run("for n in {1..400}; do sleep 20 & done; kill $(jobs -p); wait; false")
        found["memory"] = run("tail /dev/zero")
        machine.freeze()
        found["frozen"] = (group / "cgroup.events").read_text().split()
        machine.thaw()
        found["thawed"] = run("echo alive")
    finally:
        machine.stop()
    found["console"] = [line for line in machine.console.tail(40) if "limit" in line]
time.sleep(1)
found["groups left"] = [str(p) for p in Path("/sys/fs/cgroup").rglob("pytest-nixos-[0-9]*")]
listed = subprocess.run(
    ["systemctl", "list-units", "--all", "--no-legend", "pytest-nixos-[0-9]*"], capture_output=True, text=True
)
found["units left"] = listed.stdout.split("\n")[:-1]
print("FOUND " + json.dumps(found))
"""


def package() -> bytes:
    """What the container backend imports, as an archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for name in ("pytest_nixos", "pexpect", "ptyprocess"):
            found = importlib.util.find_spec(name)
            assert found is not None and found.origin is not None
            root = Path(found.origin).parent
            for path in root.rglob("*"):
                if path.suffix in {".py", ".bash"}:
                    archive.add(path, f"{name}/{path.relative_to(root)}")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def guest() -> Iterator[VmRunning]:
    with run_directory() as made:
        running = start(made.path)
        try:
            put = "mkdir -p /root/package && tar -xz -C /root/package"
            done = running.transport.run(put, stdin=package(), deadline=Deadline.after(300))
            assert done.succeeded, done.stderr_text
            yield running
        finally:
            running.stop()


def contained(guest: VmRunning, how: str) -> dict[str, Any]:
    tools = (
        "$(dirname $(readlink -f /run/current-system/systemd/bin/systemctl || type -P systemctl))"
    )
    python = "$(type -P python3 || ls -d /nix/store/*-python3/bin/python3 | head -n 1)"
    command = (
        f"modprobe -a overlay veth; cd /root; export PATH=$PATH:{tools}; "
        f"PYTHONPATH=/root/package exec {python} - {TOPLEVEL} '{how}'"
    )
    done = guest.transport.run(command, stdin=INSIDE.encode(), deadline=Deadline.after(LIMIT_S))
    lines = [line for line in done.stdout_text.splitlines() if line.startswith("FOUND ")]
    assert lines, done.stdout_text + done.stderr_text
    return dict(json.loads(lines[0].removeprefix("FOUND ")))


@pytest.mark.parametrize("how", ["scope", "own group"])
def test_limits_on_a_machine_with_systemd_and_cgroup_v2(guest: VmRunning, how: str) -> None:
    assert guest.transport.run(
        "stat -f -c %T /sys/fs/cgroup; cat /proc/1/comm", deadline=Deadline.after(60)
    ).stdout_text.split() == ["cgroup2fs", "systemd"]
    found = contained(guest, how)
    assert found["memory.max"] == str(160 << 20), found
    assert found["memory.swap.max"] in ("0", "absent"), found
    assert found["pids.max"] == "200", found
    place = "/machine.slice/pytest-nixos-" if how == "scope" else "/pytest-nixos-"
    assert found["cgroup"].startswith(f"0::{place}"), found
    assert (".scope" in found["cgroup"]) is (how == "scope"), found
    assert found["memory"] in (1, 137), found
    assert "frozen" in found["frozen"], found
    assert found["thawed"] == 0, found
    said = "\n".join(found["console"])
    assert "limit of 160 MiB of memory" in said, found
    assert "limit of 200 processes" in said, found
    assert found["groups left"] == [], found
    assert found["units left"] == [], found
