"""Shared machines go back to their snapshot after a module of destructive checks, and only then."""

from __future__ import annotations

from typing import cast

from pytest_nixos.machine.base import Machine
from pytest_nixos.plugin.machines.changed import ChangedMachines


class Recorded:
    def __init__(self, *, can_reset: bool) -> None:
        self.can_reset = can_reset
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1


def run(machine: Recorded, *tests: tuple[str, bool]) -> int:
    machines = ChangedMachines()
    machines.enter("h", cast("Machine", machine))
    for module, destructive in tests:
        machines.begin("h", module, destructive=destructive)
    return machine.resets


def test_a_module_sees_nothing_of_the_one_that_changed_the_machine_before() -> None:
    assert run(Recorded(can_reset=True), ("a", False), ("b", True), ("c", True), ("d", False)) == 2


def test_a_module_sees_what_it_did_itself() -> None:
    assert run(Recorded(can_reset=True), ("a", True), ("a", False), ("a", True)) == 0


def test_checks_that_change_nothing_share_the_machine() -> None:
    assert run(Recorded(can_reset=True), ("a", False), ("b", False)) == 0


def test_a_machine_without_snapshot_stays_as_it_is() -> None:
    assert run(Recorded(can_reset=False), ("a", True), ("b", True)) == 0
