"""A machine that one module of destructive checks has changed is not what the next module should
see.
"""

from __future__ import annotations

from pytest_nixos.machine.base import Machine, State

__all__ = ["ChangedMachines"]


class ChangedMachines:
    """The shared machines of a session, each with the module that has changed it."""

    def __init__(self) -> None:
        self._machines: dict[str, Machine] = {}
        self._changed_by: dict[str, str] = {}

    def enter(self, key: str, machine: Machine) -> None:
        """Remember the shared machine of a host."""
        self._machines[key] = machine
        self._changed_by.pop(key, None)

    def of(self, key: str) -> Machine | None:
        """Return the shared machine of a host, ``None`` where none runs."""
        machine = self._machines.get(key)
        return machine if machine is not None and machine.state is State.RUNNING else None

    def leave(self, key: str) -> None:
        """Forget a machine that ends."""
        self._machines.pop(key, None)

    def begin(self, key: str, module: str, *, destructive: bool) -> None:
        """Before a test: put the machine back if another module has changed it and a snapshot
        makes that cheap.

        :raises MachineError: if its clone does not start.
        """
        machine = self._machines.get(key)
        changed_by = self._changed_by.get(key, module)
        if changed_by != module and machine is not None and machine.can_reset:
            machine.reset()
            del self._changed_by[key]
        if destructive:
            self._changed_by[key] = module
