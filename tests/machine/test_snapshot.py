"""Snapshots with a real QEMU and a real guest: one boot, then clones.

``PYTEST_NIXOS_SNAPSHOT_SYSTEM`` is the store path of a VM that was built to be saved (``python -m
pytest_nixos build --snapshot``). Without usable KVM the module takes a minute or two, nearly all of
it the boot.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import poll
from pytest_nixos.machine.base import Machine, MachineSpec
from pytest_nixos.machine.boot.events import BootEvent, BootEventKind
from pytest_nixos.machine.capabilities import PortState, Resting
from pytest_nixos.machine.console import BootPhase
from pytest_nixos.machine.door.visitor import OpenDoor
from pytest_nixos.machine.keeper.order import SpareOrder, log_file, start_keeper
from pytest_nixos.machine.snapshot.quiesce import (
    at_rest_text,
    look_at_guest,
    waking_command,
)
from pytest_nixos.machine.snapshot.store import SnapshotStore
from pytest_nixos.machine.spare.claim import spares
from pytest_nixos.machine.vm.backend import SnapshotOptions, VmBackend, VmOptions
from tests.unit.host_documents import bare_host

SYSTEM = os.environ.get("PYTEST_NIXOS_SNAPSHOT_SYSTEM", "")
# Names the host of the spares of this process.
SPARE = f"test#spare-{os.getpid()}"
LIMIT_S = float(os.environ.get("PYTEST_NIXOS_BOOT_TIMEOUT", "300"))

pytestmark = pytest.mark.skipif(not SYSTEM, reason="needs PYTEST_NIXOS_SNAPSHOT_SYSTEM")


_HERE = f"{os.uname().machine}-linux"
HOST = bare_host("vm-under-test", program="", system=_HERE, guest_system=_HERE, snapshot_refusal="")


class Rig:
    """Machines of one host over one cache."""

    def __init__(self, directory: Path, *, takes_spares: bool = False) -> None:
        self.store = SnapshotStore(directory)
        self.told: list[str] = []
        options = VmOptions(snapshots=SnapshotOptions(store=self.store), takes_spares=takes_spares)
        self.backend = VmBackend(options, self._listen)

    def _listen(self, event: BootEvent) -> None:
        if event.kind is BootEventKind.SNAPSHOT:
            self.told.append(event.text)

    @contextlib.contextmanager
    def machine(self) -> Iterator[Machine]:
        with run_directory() as directory:
            spec = MachineSpec(
                host=HOST,
                system=Path(SYSTEM),
                run_dir=directory.path,
                boot_timeout_s=LIMIT_S,
            )
            with Machine(spec, self.backend) as machine:
                machine.start()
                yield machine


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("snapshots"))


@pytest.fixture(scope="module")
def machine(rig: Rig) -> Iterator[Machine]:
    with rig.machine() as machine:
        yield machine


def say(machine: Machine, command: str) -> str:
    return machine.run(command).stdout_text.strip()


def test_the_first_start_is_saved_and_cloned(rig: Rig, machine: Machine) -> None:
    assert [text.split()[0] for text in rig.told] == ["saved", "restored"]
    assert machine.console.phase >= BootPhase.SYSTEMD  # the boot is on its console
    assert machine.console.tail(1)[0].startswith("pytest-nixos: restored in")
    assert say(machine, "systemctl is-system-running") == "running"


def test_a_clone_knows_the_time_and_has_its_own_random_numbers(rig: Rig, machine: Machine) -> None:
    assert abs(float(say(machine, "date +%s.%N")) - time.time()) < 5
    draw = "head -c 16 /dev/urandom | base64; cat /proc/sys/kernel/random/boot_id"
    with rig.machine() as other:
        ours, theirs = say(machine, draw).split(), say(other, draw).split()
    assert ours[0] != theirs[0]
    assert ours[1] == theirs[1]  # it is one boot


def test_clones_at_once_see_nothing_of_each_other(rig: Rig, machine: Machine) -> None:
    with rig.machine() as one, rig.machine() as two, ThreadPoolExecutor(3) as pool:
        machines = (machine, one, two)
        write = "echo %s >/var/mark; echo %s >/run/mark; sync; cat /var/mark /run/mark"
        said = list(pool.map(lambda m: say(m, write.replace("%s", str(id(m)))), machines))
    assert said == [f"{id(m)}\n{id(m)}" for m in machines]


def test_the_store_can_be_added_to_and_the_network_is_up(machine: Machine) -> None:
    assert say(machine, "nix-store --add /etc/os-release").startswith("/nix/store/")
    assert say(machine, "nix-store --query --roots /run/current-system | head -1")
    assert machine.probe_tcp([22])[22] in (PortState.OPEN, PortState.CLOSED, PortState.FILTERED)


def test_a_reset_undoes_everything(machine: Machine) -> None:
    machine.run("touch /var/left; systemctl stop systemd-journald.socket systemd-journald")
    before, started_s = machine.epoch, time.monotonic()
    machine.reset()
    assert (
        say(machine, "ls /var/left 2>/dev/null; systemctl is-active systemd-journald") == "active"
    )
    assert machine.epoch > before
    assert time.monotonic() - started_s < LIMIT_S / 5


def own_spares() -> list[OpenDoor]:
    return [door for door in spares() if door.card.host == SPARE]


@contextlib.contextmanager
def ordered(machine: Machine) -> Iterator[OpenDoor]:
    """A spare like a machine, when it waits."""
    order = SpareOrder.of(machine, host=SPARE, limit_s=600.0, owner=None)
    assert order is not None
    start_keeper(order)
    end_s = time.monotonic() + LIMIT_S
    try:
        while not (found := [door for door in own_spares() if door.card.waits]):
            assert time.monotonic() < end_s, log_file().read_text()
            time.sleep(0.05)
        yield found[0]
    finally:
        for door in own_spares():
            door.end()


def test_a_clone_that_rested_goes_on_at_the_time_of_now(rig: Rig, machine: Machine) -> None:
    with rig.machine() as clone:
        running = cast("Resting", clone.running)
        running.rest(deadline=clone.deadline(LIMIT_S))
        before_s = time.time()
        time.sleep(3.0)
        running.rouse(deadline=clone.deadline(LIMIT_S))
        guest_s = float(clone.run("date +%s.%N").stdout_text)
        assert before_s + 3.0 <= guest_s + 0.1
        assert guest_s <= time.time() + 0.1
        entropy = "head --bytes=16 /dev/urandom | base64"
        assert clone.run(entropy).stdout != machine.run(entropy).stdout


# systemd itself starts it when the clock is set: OnClockChange= of systemd.timer(5).
FAILS_OF_THE_JUMP = """cd /run/systemd/system
printf '[Timer]\\nOnClockChange=true\\n' >jump.timer
printf '[Service]\\nType=oneshot\\nExecStart=%s\\n' "$(type -P false)" >jump.service
systemctl daemon-reload && systemctl start jump.timer"""


def test_a_unit_that_fails_as_the_clock_is_set_is_named(rig: Rig, machine: Machine) -> None:
    with rig.machine() as clone:
        assert clone.run(FAILS_OF_THE_JUMP).succeeded
        running = cast("Resting", clone.running)
        running.rest(deadline=clone.deadline(LIMIT_S))
        with pytest.raises(MachineError, match=r"failed when the guest woke up: jump\.service"):
            running.rouse(deadline=clone.deadline(LIMIT_S))
        # However long after the jump it is looked at: no rest of the guest hides it.
        for _ in range(5):
            told = say(clone, f"sleep 1; exec {{idle}}<> <(:)\n{at_rest_text()}")
            assert told == "NFailedUnits=1"


def test_a_guest_that_comes_to_rest_says_so_without_a_question_to_systemd(
    rig: Rig, machine: Machine
) -> None:
    with rig.machine() as clone:
        deadline = clone.deadline(LIMIT_S)

        def wake() -> bool | None:
            guest = look_at_guest(clone.transport, deadline=deadline)
            now_s = time.time()
            command = waking_command(guest, saved_at_s=now_s, now_s=now_s, entropy="ab")
            return say(clone, command) == "at-rest" or None

        # A neighbour may keep it busy for a while.
        assert poll(wake, deadline=deadline)


def test_a_spare_is_taken_once_and_is_as_any_clone(rig: Rig, machine: Machine) -> None:
    taking = Rig(rig.store.directory, takes_spares=True)
    draw = "head -c 16 /dev/urandom | base64; cat /proc/sys/kernel/random/boot_id"
    ours = say(machine, draw).split()
    with ordered(machine):
        time.sleep(5)  # its clock stands still
        with taking.machine() as one, taking.machine() as two:
            assert ["spare" in text for text in taking.told] == [True, False]
            assert abs(float(say(one, "date +%s.%N")) - time.time()) < 5
            theirs = say(one, draw).split()
            assert (ours[0] == theirs[0], ours[1] == theirs[1]) == (False, True)
            assert say(one, "systemctl is-system-running") == "running"
            assert one.probe_tcp([22]) == two.probe_tcp([22])
            assert "restored in" in one.console.tail(1)[0]
            one.run("touch /var/left")
            one.reset()
            assert say(one, "ls /var/left 2>/dev/null") == ""
    assert own_spares() == []


def test_a_spare_that_died_is_a_clone(rig: Rig, machine: Machine) -> None:
    taking = Rig(rig.store.directory, takes_spares=True)
    with ordered(machine) as door:
        os.kill(door.card.owner, signal.SIGKILL)
        with taking.machine() as one:
            assert say(one, "echo here") == "here"
    assert ["spare" in text for text in taking.told] == [False]
