"""Faults on a real guest: each is there while its context lasts, and gone afterwards. Run by
test_on_guest.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from pytest_nixos import (
    Deadline,
    FaultError,
    Faults,
    HostConfig,
    Machine,
    MachineError,
    PortState,
    TransportError,
    poll,
)

# A day and more: no time service would slew over it.
JUMP_S = 30 * 86400.0

only_vm = pytest.mark.nixos_requires("vm")
only_container = pytest.mark.nixos_requires("container")
pytestmark = pytest.mark.nixos_destructive


@pytest.fixture(autouse=True)
def unchanged(nixos_machine: Machine) -> Iterator[None]:
    before = failed_units(nixos_machine)
    epoch = nixos_machine.epoch
    yield
    assert failed_units(nixos_machine) == before
    assert nixos_machine.epoch >= epoch


def test_a_hung_machine_does_not_answer(nixos_machine: Machine, nixos_faults: Faults) -> None:
    with nixos_faults.hang(), pytest.raises(TransportError):
        nixos_machine.run("echo alive", timeout_s=1)
    assert nixos_machine.run("echo alive").stdout_text == "alive\n"


def test_a_pulled_cable_is_seen_on_both_sides(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_faults: Faults
) -> None:
    ports = [opened.first for opened in nixos_host_config.firewall.everywhere.tcp]
    assert ports
    nixos_machine.probe_tcp(ports)
    assert answers(nixos_machine, ports)
    with nixos_faults.network_down():
        assert carrier(nixos_machine) == "0"
        assert not answers(nixos_machine, ports)
    assert carrier(nixos_machine) == "1"
    assert answers(nixos_machine, ports)


@only_vm
def test_a_full_disk_takes_nothing(nixos_machine: Machine, nixos_faults: Faults) -> None:
    write = "dd if=/dev/zero of=/var/tmp/pytest-nixos-more bs=64K count=1 status=none"
    with nixos_faults.disk_full("/var/tmp"):
        assert "No space left" in nixos_machine.run(write).stderr_text
    assert nixos_machine.run(f"{write} && rm /var/tmp/pytest-nixos-more").succeeded


@only_container
@pytest.mark.parametrize("fault", ["disk_full", "clock_jump", "memory_hog", "read_only_root"])
def test_what_would_hurt_the_host_machine_is_refused(nixos_faults: Faults, fault: str) -> None:
    arguments = (5,) if fault == "clock_jump" else ()
    with (
        pytest.raises(FaultError, match="not possible on this container machine"),
        getattr(nixos_faults, fault)(*arguments),
    ):
        pass


def test_a_hog_holds_its_memory(nixos_machine: Machine, nixos_faults: Faults) -> None:
    with nixos_faults.memory_hog(24) as hog:
        held = nixos_machine.run("ps -C tail -o rss= | sort -n | tail -n 1").stdout_text
        assert hog.is_alive
        assert hog.ended_by == ""
        assert int(held) >= 24 << 10
    assert not hog.is_alive


def test_how_a_hog_ended_is_told(nixos_machine: Machine, nixos_faults: Faults) -> None:
    with nixos_faults.memory_hog(8) as hog:
        nixos_machine.run("systemctl kill --signal=SIGKILL pytest-nixos-memory-hog.service")
        poll(lambda: not hog.is_alive or None, deadline=Deadline.after(30))
        assert hog.ended_by == "signal"


@only_vm
def test_the_clock_jumps_there_and_back(nixos_machine: Machine, nixos_faults: Faults) -> None:
    before_s = now_s(nixos_machine)
    with nixos_faults.clock_jump(JUMP_S):
        assert JUMP_S - 5 < now_s(nixos_machine) - before_s < JUMP_S + 60
    assert -1 < now_s(nixos_machine) - before_s < 60


def test_a_killed_unit_comes_back(nixos_machine: Machine, nixos_faults: Faults) -> None:
    show = "systemctl show --value --property=MainPID systemd-journald.service"
    before = nixos_machine.run(show).stdout_text
    with nixos_faults.killed("systemd-journald.service"):
        pass
    after = nixos_machine.run(show).stdout_text
    assert before != after
    assert int(after) > 0


@pytest.mark.parametrize(("unit", "signal"), [("no-such.service", "SIGKILL"), ("x", "9; reboot")])
def test_what_cannot_be_killed_is_told(nixos_faults: Faults, unit: str, signal: str) -> None:
    with pytest.raises(FaultError), nixos_faults.killed(unit, signal=signal):
        pass


@only_vm
def test_a_read_only_root_refuses_writes(nixos_machine: Machine, nixos_faults: Faults) -> None:
    with nixos_faults.read_only_root():
        assert "Read-only file system" in nixos_machine.run("touch /pytest-nixos").stderr_text
    assert nixos_machine.run("touch /pytest-nixos && rm /pytest-nixos").succeeded


def test_a_fault_ends_even_if_the_test_fails(nixos_machine: Machine, nixos_faults: Faults) -> None:
    with pytest.raises(ZeroDivisionError), nixos_faults.hang():
        _ = 1 / 0
    assert nixos_machine.run("true").succeeded


def failed_units(machine: Machine) -> str:
    return machine.run("systemctl list-units --state=failed --plain --no-legend").stdout_text


def answers(machine: Machine, ports: Sequence[int]) -> bool:
    """Whether a port that the firewall lets through answers a stranger, be it with a refusal."""
    try:
        states = machine.probe_tcp(ports)
    except MachineError:
        return False
    return any(state is not PortState.FILTERED for state in states.values())


def carrier(machine: Machine) -> str:
    first = "$(ls -d /sys/class/net/e* | head -n 1)"
    return machine.run(f'cat "{first}/carrier"').stdout_text.strip()


def now_s(machine: Machine) -> float:
    return float(machine.run("date +%s.%N").stdout_text)
