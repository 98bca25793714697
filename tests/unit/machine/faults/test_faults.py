"""Faults where no machine is needed: what is refused, and what happens when a fault cannot be
undone.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_nixos.errors import BrokenMachineError, FaultError, MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import BackendName
from pytest_nixos.machine.capabilities import LostWrites, PulledDisk
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.disks.tpm import order_command
from pytest_nixos.machine.faults.faults import Faults
from pytest_nixos.nix.config.declared import FileSystem, LuksDevice
from tests.support.machine import FakeMachine
from tests.unit.standards.samples import host_config


class Frozen:
    """A machine that freezes, and thaws unless it is `stuck`."""

    def __init__(self, *, stuck: bool = False) -> None:
        self.stuck = stuck
        self.frozen = False

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        if self.stuck:
            raise MachineError("QEMU does not answer", remedy="look at it")
        self.frozen = False


def faults(machine: FakeMachine) -> Faults:
    return Faults(machine.as_machine)


def test_a_fault_begins_an_epoch_and_its_end_another() -> None:
    running = Frozen()
    machine = FakeMachine(running=running)
    with faults(machine).hang():
        assert running.frozen
        assert machine.epoch == 2
    assert not running.frozen
    assert machine.epoch == 3


def test_a_fault_is_undone_when_the_test_fails() -> None:
    running = Frozen()
    with (
        pytest.raises(ZeroDivisionError),
        faults(FakeMachine(running=running)).hang(),
    ):
        _ = 1 / 0
    assert not running.frozen


def test_a_fault_that_cannot_be_undone_breaks_the_machine() -> None:
    machine = FakeMachine(running=Frozen(stuck=True))
    with (
        pytest.raises(BrokenMachineError, match="web: the fault hang cannot be undone: QEMU"),
        faults(machine).hang(),
    ):
        pass


class SlowToNotice(FakeMachine):
    """A machine whose systemd still calls a killed unit active when it is asked two more times."""

    def __init__(self) -> None:
        super().__init__()
        self.pids = iter(["7", "7", "7", "8"])

    def run(self, command: str, *, timeout_s: float = 0.0, stdin: bytes = b"") -> CommandResult:
        if "systemctl show" in command:
            self.answers = {command: f"ActiveState=active\nMainPID={next(self.pids)}\n"}
        return super().run(command, timeout_s=timeout_s, stdin=stdin)


def test_a_unit_is_not_back_while_systemd_has_not_noticed_its_death() -> None:
    machine = SlowToNotice()
    with faults(machine).killed("a.service"):
        pass
    assert next(machine.pids, "none left") == "none left"


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [
        ("hang", ()),
        ("network_down", ()),
        ("disk_full", ()),
        ("clock_jump", (5,)),
        ("memory_hog", (8,)),
        ("memory_hog", ()),
        ("killed", ("a.service",)),
        ("read_only_root", ()),
    ],
)
def test_a_live_host_is_left_alone(fault: str, arguments: tuple[Any, ...]) -> None:
    machine = FakeMachine({"": "ActiveState=active"}, backend=BackendName.SSH)
    with (
        pytest.raises(FaultError, match="ssh machine"),
        getattr(faults(machine), fault)(*arguments),
    ):
        pass
    assert all(command.startswith("systemctl show") for command in machine.commands)


@pytest.mark.parametrize("fault", ["disk_full", "clock_jump", "memory_hog", "read_only_root"])
def test_a_container_shares_what_would_be_broken(fault: str) -> None:
    machine = FakeMachine(backend=BackendName.CONTAINER)
    arguments = (5,) if fault == "clock_jump" else ()
    with (
        pytest.raises(FaultError, match=f"{fault} is not possible on this container machine"),
        getattr(faults(machine), fault)(*arguments),
    ):
        pass
    assert machine.commands == []


def test_the_name_of_a_signal_is_no_command() -> None:
    machine = FakeMachine()
    with (
        pytest.raises(FaultError, match="is no name of a signal"),
        faults(machine).killed("a.service", signal="KILL; reboot"),
    ):
        pass
    assert machine.commands == []


class Throttling:
    """A machine whose disks take a limit, unless they are `stuck` at it."""

    def __init__(self) -> None:
        self.limits: list[int] = []

    def throttle(self, *, operations_per_s: int) -> None:
        self.limits.append(operations_per_s)


def test_a_slow_disk_is_fast_again_afterwards() -> None:
    running = Throttling()
    with faults(FakeMachine(running=running)).slow_disk(operations_per_s=5):
        assert running.limits == [5]
    assert running.limits == [5, 0]


class Pulling:
    """A machine with one SCSI disk; QEMU `keeps` it or another one."""

    def __init__(self, *, keeps: str = "") -> None:
        self.keeps = keeps
        self.there = True

    def pull_disk(self, disk: str) -> PulledDisk:
        if self.keeps:
            raise MachineError(self.keeps, remedy="pull another")
        self.there = False
        return PulledDisk(disk=disk, file="/run/sda.qcow2", image_format="qcow2")

    def plug_disk(self, pulled: PulledDisk) -> None:
        assert pulled.file == "/run/sda.qcow2"
        self.there = True


class SeesDisks(FakeMachine):
    def run(self, command: str, *_: object, **__: object) -> CommandResult:
        assert isinstance(self.running, Pulling)
        self.answers[command] = "vda sda" if self.running.there else "vda"
        return super().run(command)


def test_a_pulled_disk_is_back_afterwards_and_gone_meanwhile() -> None:
    running = Pulling()
    with faults(SeesDisks(running=running)).disk_pulled("sda"):
        assert not running.there
    assert running.there


def test_a_disk_that_cannot_be_pulled_is_told_and_stays() -> None:
    running = Pulling(keeps="the VM has no disk sdq that could be pulled; there are: sda")
    with (
        pytest.raises(FaultError, match=r"disk_pulled is not possible .*: the VM has no disk sdq"),
        faults(SeesDisks(running=running)).disk_pulled("sdq"),
    ):
        pass
    assert running.there
    with (
        pytest.raises(FaultError, match=r"disk_pulled is not possible .*: its files lie on"),
        faults(FakeMachine(running=Frozen())).disk_pulled("sda"),
    ):
        pass


def test_a_disk_that_cannot_be_slowed_down_is_told() -> None:
    with (
        pytest.raises(FaultError, match=r"slow_disk is not possible .*: its files lie on"),
        faults(FakeMachine(running=Frozen())).slow_disk(),
    ):
        pass
    with (
        pytest.raises(FaultError, match="0 operations a second are none"),
        faults(FakeMachine(running=Throttling())).slow_disk(operations_per_s=0),
    ):
        pass


def sealed(*devices: str, disk: str = "/dev/vda1") -> FakeMachine:
    """Return a machine whose LUKS device is unlocked by what its options say."""
    machine = FakeMachine()
    machine.spec.host = host_config(
        file_systems={
            "/": FileSystem(mount_point="/", device="/dev/mapper/c", fs_type="ext4", options=())
        },
        luks={"c": LuksDevice(name="c", device=disk, options=devices)},
        own_disks=True,
        machine_tpm=True,
    )
    return machine


def test_a_pcr_is_ordered_another_value_until_the_context_ends() -> None:
    machine = sealed("tpm2-device=auto")
    with faults(machine).pcr_changed(4):
        assert machine.commands == [order_command("/dev/vda", 4)]
    assert machine.commands[1:] == [order_command("/dev/vda", None)]


@pytest.mark.parametrize(
    ("machine", "pcr", "why"),
    [
        (sealed("tpm2-device=auto"), 24, "a TPM has no PCR 24"),
        (sealed(), 7, "no TPM unlocks a disk of its own"),
        (sealed("tpm2-device=auto", disk="/dev/vda"), 7, "/dev/vda has no partition table"),
    ],
)
def test_a_pcr_that_cannot_be_changed_is_told(machine: FakeMachine, pcr: int, why: str) -> None:
    with (
        pytest.raises(FaultError, match=f"pcr_changed is not possible .*: {why}"),
        faults(machine).pcr_changed(pcr),
    ):
        pass
    assert not machine.commands


class Disks:
    """The disks of a machine: what is asked of them, and whether a file system has given up."""

    def __init__(self, *, refuses: str = "") -> None:
        self.done: list[str] = []
        self.refuses = refuses

    def note(self, what: str) -> None:
        if self.refuses:
            raise MachineError(self.refuses, remedy="another disk")
        self.done.append(what)

    def log_writes(self, *, deadline: Deadline) -> None:
        self.note("log")

    def stop_logging(self) -> None:
        self.done.append("no log")

    def lose_writes(
        self, *, survive: float, seed: int, deadline: Deadline
    ) -> tuple[LostWrites, ...]:
        self.note(f"lose {survive} {seed}")
        return (LostWrites(disk="vda", lost=1, lost_bytes=512, kept=2, flushes=1),)

    def fail(self, disk: str, *, kinds: tuple[str, ...]) -> None:
        self.note(f"fail {disk} {' '.join(kinds)}")

    def mend(self) -> None:
        self.done.append("mend")


class WithDisks(FakeMachine):
    """A machine with such disks, which gives up writing to its root while they fail if it is
    `fragile`.
    """

    def __init__(self, *, fragile: bool = False, refuses: str = "") -> None:
        self.disks = Disks(refuses=refuses)
        super().__init__(running=SimpleNamespace(storage=self.disks))
        self.fragile = fragile

    def run(self, command: str, *_: object, **__: object) -> CommandResult:
        failed = any(what.startswith("fail") for what in self.disks.done)
        is_up = "on" in self.disks.done
        self.answers[command] = "" if failed and self.fragile and not is_up else "/ /data"
        return super().run(command)

    def power_off(self, *, orderly: bool) -> None:
        self.disks.done.append("off in order" if orderly else "off")

    def power_on(self) -> None:
        self.disks.done.append("on")


def test_a_failing_disk_is_mended_and_what_gave_up_over_it_started_afresh() -> None:
    for fragile, after in ((False, ["mend"]), (True, ["mend", "off", "on"])):
        machine = WithDisks(fragile=fragile)
        with faults(machine).failing_disk("sda", reads=True):
            assert machine.disks.done == ["fail sda write flush read"]
        assert machine.disks.done[1:] == after


def test_power_that_is_lost_comes_back_and_what_was_lost_is_told() -> None:
    machine = WithDisks()
    with faults(machine).volatile_write_cache() as cache:
        [lost] = cache.lose_power(survive=0.5, seed=3)
    assert (lost.disk, lost.lost) == ("vda", 1)
    assert machine.disks.done == ["log", "lose 0.5 3", "off", "on", "no log"]


@pytest.mark.parametrize("fault", ["failing_disk", "volatile_write_cache"])
def test_disks_that_are_not_there_or_are_in_use_by_another_fault_are_told(fault: str) -> None:
    machine = WithDisks(refuses="the VM has no disk vda")
    with (
        pytest.raises(FaultError, match=f"{fault} is not possible .*: the VM has no disk vda"),
        getattr(faults(machine), fault)(),
    ):
        pass
    with (
        pytest.raises(FaultError, match=f"{fault} is not possible .*: its files lie on"),
        getattr(faults(FakeMachine(running=Frozen())), fault)(),
    ):
        pass
