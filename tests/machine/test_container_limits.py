"""What a container may take of this machine: time, memory, processes, disk; and that it is told
when it came to that.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import CommandTimeout, TransportError
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.container import disk, limits
from pytest_nixos.machine.container.backend import ContainerBackend, ContainerRunning
from tests.machine.test_container_boot import LIMIT_S, run, spec, started
from tests.machine.test_container_boot import pytestmark as needs_a_container
from tests.support.disk_use import allocated_bytes

pytestmark = needs_a_container

MIB = 1 << 20


@pytest.fixture
def place() -> Iterator[Path]:
    with run_directory() as directory:
        yield directory.path


@pytest.fixture
def small(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ContainerRunning]:
    """A container with 384 MiB of memory, 300 tasks and a disk of 256 MiB."""
    monkeypatch.setattr(limits, "_TASKS", 300)
    monkeypatch.setattr(disk, "_MOST_BYTES", 256 * MIB)
    given = replace(spec(place), memory_mib=384)
    machine = ContainerBackend().start(given, deadline=Deadline.after(LIMIT_S))
    try:
        yield machine
    finally:
        machine.stop()


def said(machine: ContainerRunning) -> str:
    return "\n".join(machine.console.tail(20))


def test_a_guest_that_eats_memory_is_stopped_at_its_limit_and_told(small: ContainerRunning) -> None:
    result = run(small, "tail /dev/zero")
    assert result.exit_status in (1, 137)
    assert "limit of 384 MiB of memory" in said(small)
    assert run(small, "echo still here").stdout == b"still here\n"


def test_files_in_memory_count_too(small: ContainerRunning) -> None:
    """They cannot be thrown away, so the container ends of it; this machine does not feel it."""
    before = in_memory()
    with contextlib.suppress(TransportError):
        run(small, "head -c 2G /dev/zero >/dev/shm/big; head -c 2G /dev/zero >/run/big; true")
    assert in_memory() - before < 900 * MIB
    small.stop()
    assert "limit of 384 MiB of memory" in said(small)


def test_a_fork_bomb_is_stopped_at_its_limit_and_told(small: ContainerRunning) -> None:
    bomb = "for n in {1..600}; do sleep 30 & done; kill $(jobs -p); wait; false"
    assert not run(small, bomb).succeeded
    assert "limit of 300 processes" in said(small)


def test_a_full_disk_is_the_guests_own(small: ContainerRunning, place: Path) -> None:
    assert b"No space left" in run(small, "head -c 1G /dev/zero >/var/big").stderr
    assert allocated_bytes(place) < 700 * MIB
    assert run(small, "rm /var/big; echo x >/var/more && cat /var/more").stdout == b"x\n"


def test_output_without_end_is_bounded_and_ends_in_time(small: ContainerRunning) -> None:
    before, started_s = resident(), time.monotonic()
    with pytest.raises(TransportError):
        small.transport.run("yes", deadline=Deadline.after(60))
    assert time.monotonic() - started_s < 40
    assert resident() - before < 700 * MIB
    assert run(small, "echo still here").stdout == b"still here\n"


def test_the_first_command_that_a_frozen_guest_does_not_answer_is_a_broken_machine() -> None:
    """Not a timeout of that command: the first one ends the host's checks, and no other one
    waits.
    """
    with started() as machine:
        assert run(machine, "true").succeeded
        machine.freeze()
        started_s = time.monotonic()
        with pytest.raises(TransportError, match="does not answer") as caught:
            machine.transport.run("true", deadline=Deadline.after(1))
        assert not isinstance(caught.value, CommandTimeout)
        assert time.monotonic() - started_s < 15
        machine.thaw()
        assert run(machine, "echo again").stdout == b"again\n"


def test_a_guest_cannot_hide_from_the_freezer() -> None:
    """It may move its processes between its own groups; the one that is frozen is not its to
    choose.
    """
    with started() as machine:
        hide = "mkdir /sys/fs/cgroup/hidden && for p in $(cat /sys/fs/cgroup/init.scope/cgroup.procs); do echo $p >/sys/fs/cgroup/hidden/cgroup.procs; done"
        run(machine, hide)
        run(machine, "(while :; do date +%s%N >/run/ticks; done) >/dev/null 2>&1 &")
        machine.freeze()
        ticks = Path(f"/proc/{machine.leader.pid if machine.leader else 0}/root/run/ticks")
        first = ticks.read_text()
        time.sleep(0.3)
        assert ticks.read_text() == first
        machine.thaw()


def in_memory() -> int:
    """Return what files in memory take of this machine; what other tests' machines have of it is
    no file.
    """
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Shmem")


def resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
