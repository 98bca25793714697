"""The VM backend with a real run script and a real QEMU: boots, bad ends, nothing left behind.

``PYTEST_NIXOS_VM_SYSTEM`` is the store path of ``config.system.build.vm`` of a host with the
instrumentation. Without usable KVM the whole module takes two to three minutes.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pytest_nixos.errors import BootError, TransportError
from pytest_nixos.local.leftovers import marked_processes
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.boot.events import BootEvent, BootEventKind
from pytest_nixos.machine.console import BootPhase
from pytest_nixos.machine.survey import Survey
from pytest_nixos.machine.vm.backend import VmBackend
from pytest_nixos.machine.vm.run_script import find_run_script
from pytest_nixos.machine.vm.running import VmRunning
from tests.unit.host_documents import bare_host

SYSTEM = os.environ.get("PYTEST_NIXOS_VM_SYSTEM", "")
LIMIT_S = float(os.environ.get("PYTEST_NIXOS_BOOT_TIMEOUT", "300"))

pytestmark = pytest.mark.skipif(not SYSTEM, reason="needs PYTEST_NIXOS_VM_SYSTEM")


_HERE = f"{os.uname().machine}-linux"
HOST = bare_host("vm-under-test", program="", system=_HERE, guest_system=_HERE)


def spec(directory: Path) -> MachineSpec:
    return MachineSpec(
        host=HOST,
        system=Path(SYSTEM),
        run_dir=directory,
        boot_timeout_s=LIMIT_S,
    )


def start(
    directory: Path,
    events: list[BootEvent] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    limit_s: float = LIMIT_S,
) -> VmRunning:
    heard: list[BootEvent] = [] if events is None else events
    backend = VmBackend(None, heard.append, environment={**os.environ, **(environment or {})})
    return backend.start(spec(directory), deadline=Deadline.after(limit_s))


def assert_nothing_left(directory: Path) -> None:
    assert not marked_processes("NIX_DISK_IMAGE", str(directory / "disk.qcow2"))
    assert {path.name for path in directory.iterdir()} <= {"owner.lock"}
    assert not [t for t in threading.enumerate() if t.name in {"nixos-console", "nixos-qmp"}]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with run_directory() as made:
        yield made.path


@pytest.fixture(scope="module")
def events() -> list[BootEvent]:
    return []


@pytest.fixture(scope="module")
def running(directory: Path, events: list[BootEvent]) -> Iterator[VmRunning]:
    running = start(directory, events)
    yield running
    running.stop()


def test_a_boot_tells_its_phases_and_ends_settled(
    running: VmRunning, events: list[BootEvent]
) -> None:
    kinds = [event.kind for event in events]
    assert kinds.index(BootEventKind.CHANNEL) < kinds.index(BootEventKind.SETTLED)
    assert running.console.phase >= BootPhase.SYSTEMD
    assert running.console.fatal_trouble is None


def test_the_guest_obeys_and_no_job_is_left(running: VmRunning) -> None:
    result = running.transport.run(
        "id -u; systemctl list-jobs --no-legend; exit 3", deadline=Deadline.after(60)
    )
    assert (result.exit_status, result.stdout_text) == (3, "0\n")


def test_the_run_script_became_qemu_and_its_monitor_answers(running: VmRunning) -> None:
    assert running.is_alive()
    assert b"qemu" in Path(f"/proc/{running.pid}/cmdline").read_bytes()
    status = running.qmp.execute("query-status", deadline=Deadline.after(60))
    assert status["status"] == "running"


def test_its_screen_shows_the_text_console(running: VmRunning, directory: Path) -> None:
    # What a user of the host sees there is the login prompt; a line of ours makes it two pictures.
    before = running.screen()
    assert before.width >= 640
    running.transport.run("printf '%0800d' 8 > /dev/tty1", deadline=Deadline.after(30))

    def changed() -> bool | None:
        return running.screen() != before or None

    assert poll(changed, deadline=Deadline.after(30))
    assert not list(directory.rglob("screen.ppm"))


def test_the_journal_rests_while_every_port_is_tried(running: VmRunning) -> None:
    """What the firewall logs of it would push the boot's own lines out."""
    running.survey(Survey(tcp=range(20_001, 25_001)), deadline=Deadline.after(LIMIT_S))
    count = """
journalctl --sync
dmesg | grep -c 'refused connection: '
journalctl --boot --dmesg --output=cat --no-pager | grep -c '^refused connection: '
"""
    told = running.transport.run(count, deadline=Deadline.after(60)).stdout_text.split()
    kept_by_kernel, kept_by_journal = map(int, told)
    # It reads afterwards what the kernel's buffer still has, from which a line of somebody else's may push one.
    assert 0 < kept_by_journal <= kept_by_kernel + 20


def test_qemu_killed_in_mid_run_is_told_at_once_and_leaves_nothing(
    running: VmRunning, directory: Path
) -> None:
    threading.Timer(0.5, os.kill, (running.pid, signal.SIGKILL)).start()
    deadline = Deadline.after(20)
    with pytest.raises(TransportError, match="QEMU ended by signal 9") as caught:
        running.transport.run("sleep 300", deadline=Deadline.after(300))
    assert not deadline.expired
    assert "find out who killed QEMU" in caught.value.remedy
    assert not running.is_alive()
    running.stop()
    assert_nothing_left(directory)


def test_a_panic_is_told_without_waiting_for_the_limit() -> None:
    with run_directory() as made:
        with pytest.raises(BootError) as caught:
            # No initrd program and no root: the kernel gives up by itself.
            start(made.path, environment={"QEMU_KERNEL_PARAMS": "rdinit=/nonexistent root="})
        assert caught.value.state == "kernel panic"
        assert any("Unable to mount root fs" in line for line in caught.value.console_tail)
        assert_nothing_left(made.path)


def test_ctrl_c_during_the_boot_leaves_nothing() -> None:
    with run_directory() as made:
        threading.Timer(3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            start(made.path)
        assert_nothing_left(made.path)


def test_a_limit_that_is_too_short_tells_how_far_the_boot_came() -> None:
    with run_directory() as made:
        with pytest.raises(BootError, match="no answer from the root command channel after 3 s"):
            start(made.path, limit_s=3)
        assert_nothing_left(made.path)


def test_the_run_script_is_found_without_its_name() -> None:
    assert find_run_script(Path(SYSTEM), "").name.startswith("run-")
