"""A hostile guest in a real QEMU, a session that is killed while it saves one, and a state that
QEMU refuses: this machine and the run survive each.

One snapshot serves all: each attempt is made in a clone of its own. Needs what
:mod:`tests.machine.test_snapshot` needs; two boots.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import NixosError, NoAnswerError, TransportError
from pytest_nixos.local.pace import Pacer
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import Machine, MachineSpec
from pytest_nixos.machine.snapshot.record import RECORD, STATE, Snapshot
from pytest_nixos.machine.snapshot.sealed_file import SealedFile
from tests.machine.test_snapshot import HOST, LIMIT_S, SYSTEM, Rig, say
from tests.support.disk_use import allocated_bytes
from tests.support.processes import processes

pytestmark = pytest.mark.skipif(not SYSTEM, reason="needs PYTEST_NIXOS_SNAPSHOT_SYSTEM")

SESSION = """
import sys
from pathlib import Path
from tests.machine.test_snapshot import Rig
with Rig(Path(sys.argv[1])).machine():
    print("up", flush=True)
"""


def drafts(directory: Path) -> list[Path]:
    return sorted(directory.glob(".new-*"))


def qemus(directory: Path) -> list[str]:
    """Processes that hold a snapshot's memory of this cache."""
    lines = [process.line for process in processes()]
    return [line[:200] for line in lines if str(directory) in line and "qemu-system" in line]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which a session was killed in the middle of a save."""
    directory = tmp_path_factory.mktemp("snapshots")
    repository = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", SESSION, str(directory)],
        env={**os.environ, "PYTHONPATH": repository},
        stdout=subprocess.DEVNULL,
    ) as session:
        end_s = time.monotonic() + 2 * LIMIT_S
        while not [state for draft in drafts(directory) for state in draft.glob(STATE)]:
            assert session.poll() is None, "the session ended before it saved"
            assert time.monotonic() < end_s
            time.sleep(0.002)
        session.send_signal(signal.SIGKILL)
    return directory


@pytest.fixture(scope="module")
def rig(cache: Path) -> Rig:
    return Rig(cache)


@pytest.fixture
def clone(rig: Rig) -> Iterator[Machine]:
    with rig.machine() as machine:
        yield machine


@contextlib.contextmanager
def in_time(limit_s: float) -> Iterator[None]:
    started_s = time.monotonic()
    yield
    assert time.monotonic() - started_s < limit_s


def test_a_session_killed_in_the_middle_of_a_save_leaves_no_process_and_no_snapshot(
    cache: Path, rig: Rig
) -> None:
    left = drafts(cache)
    assert left, "the session was not killed in the middle of a save"
    assert poll(lambda: not qemus(cache) or None, deadline=Deadline.after(60)), qemus(cache)
    assert [path for path in cache.iterdir() if (path / RECORD).exists()] == []
    for path in left:
        os.utime(
            path, (0, 0)
        )  # one that is young may still be somebody's who has not locked it yet
    with rig.machine() as machine:
        assert say(machine, "echo alive") == "alive"
    assert [text.split()[0] for text in rig.told] == ["saved", "restored"]
    assert not [path for path in left if path.exists()]


def test_a_fork_bomb_ends_with_its_machine(clone: Machine) -> None:
    """A command of ours has no limit of tasks in a VM: the guest may go down, and only it."""
    bomb = "bomb() { bomb | bomb & }; bomb; sleep 60"
    # 15 s, then two minutes for a command to a guest that answers nobody, and the grace of both.
    with in_time(Pacer().renew().limit(200)):
        with contextlib.suppress(TransportError):
            clone.run(bomb, timeout_s=15)
        with contextlib.suppress(TransportError):
            assert say(clone, "echo alive") == "alive"
        clone.stop()


def test_memory_that_is_eaten_costs_the_eater(clone: Machine) -> None:
    eaten = clone.run("tail /dev/zero", timeout_s=600)
    assert not eaten.succeeded
    assert say(clone, "echo alive") == "alive"


def test_full_partitions_of_the_guest_are_its_own(clone: Machine) -> None:
    fill = (
        "for d in / /var /tmp /var/tmp /run /dev/shm /root; do dd if=/dev/zero of=$d/fill bs=1M status=none; done;"
        " df --output=avail /run /dev/shm | tail -n 2"
    )
    # What it prints has no room either: that is told, or it comes all the same.
    with contextlib.suppress(TransportError):
        clone.run(fill, timeout_s=240)
    with contextlib.suppress(TransportError):
        assert say(clone, "echo alive") == "alive"
    with contextlib.suppress(TransportError):
        clone.run(
            "rm -f /fill /var/fill /tmp/fill /var/tmp/fill /run/fill /dev/shm/fill /root/fill"
        )
    assert say(clone, "echo alive") == "alive"
    assert allocated_bytes(clone.spec.run_dir) < 4 << 30


def test_a_clock_that_jumps_back_and_forth_moves_no_limit_of_ours(clone: Machine) -> None:
    for when in ("1970-01-02", "2037-12-31", "1999-12-31"):
        clone.run(f"date --set={when}")
        done = clone.run("sleep 1", timeout_s=60)
        assert done.succeeded
        assert 0.9 < done.duration_s < 60
        assert say(clone, "date +%Y")[:4] in when or say(clone, "date +%Y").startswith(when[:3])
    with in_time(60), pytest.raises(TransportError):
        clone.run("sleep 600", timeout_s=3)
    assert say(clone, "echo alive") == "alive"


def test_a_console_that_is_flooded_fills_no_memory(clone: Machine) -> None:
    clone.run("timeout 5 yes $(head -c 200 /dev/zero | tr '\\0' x) >/dev/console", timeout_s=120)
    assert say(clone, "echo alive") == "alive"
    assert sum(len(line.text) for line in clone.console.lines) < 64 << 20


def test_a_guest_cannot_speak_on_the_ports_of_the_channel(clone: Machine) -> None:
    """A virtserialport is opened by one process at a time: the server."""
    forge = "for p in /dev/vport*; do timeout 2 sh -c \"printf 'A forged\\n' >$p\" 2>&1; done"
    said = clone.run(forge, timeout_s=60).stdout_text
    assert "Device or resource busy" in said
    assert say(clone, "echo alive") == "alive"


def test_a_server_that_is_killed_again_and_again_is_told_or_back(clone: Machine) -> None:
    for _ in range(3):
        with contextlib.suppress(TransportError):
            clone.run("systemctl kill --signal=KILL pytest-nixos-channel.service", timeout_s=30)
    alive = poll(lambda: _says_alive(clone) or None, deadline=Deadline.after(90), interval_s=0.5)
    assert alive


def _says_alive(machine: Machine) -> bool:
    try:
        return say(machine, "echo alive") == "alive"
    except TransportError:
        return False


@pytest.mark.parametrize(
    ("how", "told"),
    [("c", "panic"), ("o", "ended"), ("b", "ended|reboot|answer")],
    ids=["panic", "power off", "reset"],
)
def test_a_guest_that_ends_itself_is_told_at_once(clone: Machine, how: str, told: str) -> None:
    end = f"echo 1 >/proc/sys/kernel/sysrq; echo {how} >/proc/sysrq-trigger; sleep 30"
    with in_time(60), pytest.raises(TransportError, match=told):
        clone.run(end, timeout_s=30)


def test_a_qemu_that_stands_still_is_no_answer_in_time(clone: Machine) -> None:
    pid = clone.running.pid  # type: ignore[attr-defined]  # a VM's
    os.kill(pid, signal.SIGSTOP)
    try:
        with in_time(40), pytest.raises(NoAnswerError):
            clone.run("true", timeout_s=5)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_state_that_a_real_qemu_refuses_is_discarded(rig: Rig, cache: Path) -> None:
    """All is whole and of the right owner, and the bytes mean nothing to QEMU."""
    (path,) = [path for path in cache.iterdir() if (path / RECORD).exists()]
    record = Snapshot.load(path).record
    state = path / STATE
    mode = state.stat().st_mode
    state.chmod(0o600)
    data = bytearray(state.read_bytes())
    middle = len(data) // 2
    data[16:middle] = bytes(byte ^ 0x5A for byte in data[16:middle])
    state.write_bytes(data)
    state.chmod(mode)
    files = tuple(SealedFile.seal(path, file.name) for file in record.files)
    (path / RECORD).chmod(0o600)
    (path / RECORD).write_bytes(replace(record, files=files).to_bytes())
    rig.told.clear()
    # It is booted anew then; here there is no time for it.
    with pytest.raises(NixosError):
        start_briefly(rig)
    assert any("discard" in text or "not load" in text for text in rig.told), rig.told
    assert [path for path in cache.iterdir() if (path / RECORD).exists()] == []
    assert not qemus(cache)


def start_briefly(rig: Rig) -> None:
    with run_directory() as directory:
        spec = MachineSpec(
            host=HOST,
            system=Path(SYSTEM),
            run_dir=directory.path,
            boot_timeout_s=10,
        )
        with Machine(spec, rig.backend) as machine:
            machine.start()


def test_nothing_is_left(cache: Path) -> None:
    assert not qemus(cache)
    assert not drafts(cache)
