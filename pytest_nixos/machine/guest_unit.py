"""A command that a transient unit of the guest runs beside the root command channel, with a directory of
its own below ``/run``.
"""

from __future__ import annotations

import contextlib
import shlex
from types import TracebackType
from typing import Self

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult, Transport

__all__ = ["GuestUnit"]

# Seconds that one trip of the channel may take.
_TRIP_S = 60.0


class GuestUnit:
    """A command in a unit of its own; a context manager that ends it.

    :param transport: the machine's root command channel.
    :param start: bash text that starts the unit and prints its directory.
    :param end: bash text that ends the unit, removes the directory and prints the command's exit
        status; ``{d}`` stands for the directory.
    :param refused: what cannot be done where it does not start, for the error.
    :param needs: programs of the guest that it takes, for the remedy.
    :raises MachineError: if the guest cannot start it.
    """

    def __init__(
        self, transport: Transport, *, start: str, end: str, refused: str, needs: str
    ) -> None:
        self._transport = transport
        self._end = end
        #: once it has ended
        self.exit_status: int | None = None
        started = self._run(start)
        if not started.succeeded:
            raise MachineError(
                f"{refused} in the guest: {started.stderr_text.strip()}",
                remedy=f"the guest needs {needs}, as NixOS has them; "
                "nixos_machine.run() works without",
            )
        self._directory = shlex.quote(started.stdout_text.strip())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(MachineError):
            said = self._run(self._end.format(d=self._directory)).stdout_text.strip()
            if said.isdigit():
                self.exit_status = int(said)

    def _run(self, command: str, stdin: bytes = b"") -> CommandResult:
        return self._transport.run(command, deadline=Deadline.after(_TRIP_S), stdin=stdin)
