"""The surroundings of a container, made by root and without any guest: what they wait for."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.machine.container.disk import PLAIN, ROOT, STORE
from pytest_nixos.machine.container.gate import Gate
from pytest_nixos.machine.container.limits import Limits
from pytest_nixos.machine.container.nspawn import CHANNEL, GATE, ContainerPlan, stage_argv
from pytest_nixos.machine.container.users import UserRange
from pytest_nixos.machine.network.scan import LinkAddresses
from tests.machine.test_container_boot import pytestmark as needs_a_container

pytestmark = needs_a_container

LIMIT_S = 60.0


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A run directory with all that the surroundings find there, but for the gate."""
    with run_directory() as directory:
        for name in ("private", f"{PLAIN}/{ROOT}", f"{PLAIN}/{STORE}", CHANNEL):
            (directory.path / name).mkdir(parents=True)
        yield directory.path


@contextlib.contextmanager
def staged(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Make the surroundings, with a program in place of systemd-nspawn that leaves a file."""
    plan = ContainerPlan(
        name="web",
        run_dir=run_dir,
        init="",
        cgroup="",
        addresses=LinkAddresses(
            outside=IPv4Interface("10.233.0.1/24"),
            guest=None,
            target=IPv4Address("10.233.0.2"),
        ),
        limits=Limits(memory_bytes=1 << 30, tasks=100),
        users=UserRange(base=0x70000000, size=0x80000),
    )
    unshare = shutil.which("unshare") or "unshare"
    argv = stage_argv(plan, ["touch", str(run_dir / "passed")], unshare=unshare)
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_they_wait_until_the_disk_is_made(run_dir: Path) -> None:
    with Gate(run_dir / GATE) as gate, staged(run_dir) as process:
        time.sleep(1.0)
        assert process.poll() is None
        assert not (run_dir / "passed").exists()
        gate.let_pass()
        assert process.wait(LIMIT_S) == 0
    assert (run_dir / "passed").exists()
    assert not (run_dir / GATE).exists()


def test_whoever_comes_later_passes_at_once(run_dir: Path) -> None:
    with Gate(run_dir / GATE) as gate:
        gate.let_pass()
        with staged(run_dir) as process:
            assert process.wait(LIMIT_S) == 0
    assert (run_dir / "passed").exists()


def test_nothing_starts_on_a_store_whose_owners_are_this_machines(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with Gate(run_dir / GATE) as gate:
        gate.let_pass()
        with staged(run_dir) as process:
            assert process.wait(LIMIT_S) == 1
    assert not (run_dir / "passed").exists()


def test_where_the_session_is_gone_nothing_starts(run_dir: Path) -> None:
    with contextlib.ExitStack() as session:
        session.enter_context(Gate(run_dir / GATE))
        with staged(run_dir) as process:
            time.sleep(1.0)
            session.close()
            assert process.wait(LIMIT_S) != 0
    assert not (run_dir / "passed").exists()
