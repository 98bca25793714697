"""Faults where no machine is needed: what is refused, and what happens when a fault cannot be undone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_nixos.errors import BrokenMachineError, FaultError, MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import BackendName, Machine
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.faults.faults import Faults


class FakeMachine:
    """Answers each command with success and `output`, and counts epochs."""

    def __init__(self, backend: BackendName, running: object = None, output: str = "") -> None:
        self.name = "web"
        self.backend = SimpleNamespace(name=backend)
        self.running = running
        self.output = output
        self.epoch = 1
        self.commands: list[str] = []

    def deadline(self, limit_s: float) -> Deadline:
        return Deadline.after(limit_s)

    def invalidate(self) -> None:
        self.epoch += 1

    def run(self, command: str, *, timeout_s: float = 0, stdin: bytes = b"") -> CommandResult:
        self.commands.append(command)
        return CommandResult(
            command=command,
            exit_status=0,
            stdout=self.output.encode(),
            stderr=b"",
            duration_s=0.0,
        )


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
    return Faults(cast(Machine, machine))


def test_a_fault_begins_an_epoch_and_its_end_another() -> None:
    running = Frozen()
    machine = FakeMachine(BackendName.VM, running)
    with faults(machine).hang():
        assert running.frozen
        assert machine.epoch == 2
    assert not running.frozen
    assert machine.epoch == 3


def test_a_fault_is_undone_when_the_test_fails() -> None:
    running = Frozen()
    with (
        pytest.raises(ZeroDivisionError),
        faults(FakeMachine(BackendName.VM, running)).hang(),
    ):
        _ = 1 / 0
    assert not running.frozen


def test_a_fault_that_cannot_be_undone_breaks_the_machine() -> None:
    machine = FakeMachine(BackendName.VM, Frozen(stuck=True))
    with (
        pytest.raises(BrokenMachineError, match="web: the fault hang cannot be undone: QEMU"),
        faults(machine).hang(),
    ):
        pass


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
    machine = FakeMachine(BackendName.SSH, output="ActiveState=active")
    with (
        pytest.raises(FaultError, match="ssh machine"),
        getattr(faults(machine), fault)(*arguments),
    ):
        pass
    assert all(command.startswith("systemctl show") for command in machine.commands)


@pytest.mark.parametrize("fault", ["disk_full", "clock_jump", "memory_hog", "read_only_root"])
def test_a_container_shares_what_would_be_broken(fault: str) -> None:
    machine = FakeMachine(BackendName.CONTAINER)
    arguments = (5,) if fault == "clock_jump" else ()
    with (
        pytest.raises(FaultError, match=f"{fault} is not possible on this container machine"),
        getattr(faults(machine), fault)(*arguments),
    ):
        pass
    assert machine.commands == []


def test_the_name_of_a_signal_is_no_command() -> None:
    machine = FakeMachine(BackendName.VM)
    with (
        pytest.raises(FaultError, match="is no name of a signal"),
        faults(machine).killed("a.service", signal="KILL; reboot"),
    ):
        pass
    assert machine.commands == []
