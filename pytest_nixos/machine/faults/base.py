"""What all faults share: they are undone whatever happens, and say what they cannot do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pytest_nixos.errors import BrokenMachineError, FaultError, NixosError
from pytest_nixos.local.timing import poll
from pytest_nixos.machine.base import BackendName, Machine
from pytest_nixos.machine.boot.settle import parse_properties
from pytest_nixos.machine.command import CommandResult

__all__ = ["FaultBase"]

_STEP_LIMIT_S = 300.0
_INTERVAL_S = 0.2


class FaultBase:
    """One machine, and the steps of which its faults are made."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @contextlib.contextmanager
    def _change(self, fault: str, undo: Callable[[], object]) -> Iterator[None]:
        """Begin new epochs around a fault, and undo it whatever happens."""
        if self._machine.backend.name.runs_already:
            raise self._cannot(
                fault, "a machine that this session did not start is not broken on purpose"
            )
        self._machine.invalidate()
        try:
            yield
        finally:
            try:
                undo()
            except NixosError as err:
                raise BrokenMachineError(
                    f"{self._machine.name}: the fault {fault} cannot be undone: {err.message}",
                    remedy="use a machine of the test's own (nixos_fresh_machine) for this fault",
                ) from err
            finally:
                self._machine.invalidate()

    def _properties(self, command: str) -> dict[str, str]:
        return parse_properties(self._do(command).stdout_text)

    def _require_vm(self, fault: str, why: str) -> None:
        if self._machine.backend.name is not BackendName.VM:
            raise self._cannot(fault, why)

    def _cannot(self, fault: str, why: str) -> FaultError:
        return FaultError(
            f"{self._machine.name}: {fault} is not possible on this {self._machine.backend.name.value} machine: {why}",
            remedy="mark the test nixos_requires(...) with the places where the fault is possible, or run the host as a VM",
        )

    def _await(self, look: Callable[[], bool | None], problem: str) -> None:
        deadline = self._machine.deadline(_STEP_LIMIT_S)
        if poll(look, deadline=deadline, interval_s=_INTERVAL_S) is None:
            raise FaultError(
                f"{self._machine.name}: {problem} within {deadline.limit_s:g} s",
                remedy="look at the machine's journal",
            )

    def _do(self, command: str) -> CommandResult:
        result = self._machine.run(command, timeout_s=self._machine.deadline(_STEP_LIMIT_S).limit_s)
        if not result.succeeded:
            first = command.strip().splitlines()[0]
            raise FaultError(
                f"{self._machine.name}: {first!r} ended with {result.exit_status}: "
                f"{result.stderr_text.strip() or result.stdout_text.strip()}",
                remedy="see whether the host has what the fault needs (systemd, util-linux, coreutils)",
            )
        return result
