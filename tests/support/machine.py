"""A machine that is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from pytest_nixos.backend_name import BackendName
from pytest_nixos.local.pace import Pace
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.capabilities import BootsFrom
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.console import Console

__all__ = ["FakeMachine"]


class FakeMachine:
    """Answers commands as told, keeps what was asked, and counts epochs.

    :param answers: part of a command to what it prints, to its exit status, or to what it raises;
        the first that fits decides, and what fits none succeeds and says nothing.
    :param running: what the backend made, with whatever it offers.
    """

    def __init__(
        self,
        answers: dict[str, str | int | Exception] | None = None,
        *,
        backend: BackendName = BackendName.VM,
        running: object = None,
        toplevel: str = "",
    ) -> None:
        self.answers = {} if answers is None else answers
        self.commands: list[str] = []
        self.name = "web"
        self.backend = SimpleNamespace(name=backend)
        self.running = running
        self.boots_from: BootsFrom | None = BootsFrom.SCRIPT
        self.condemned = ""
        self.epoch = 1
        host = SimpleNamespace(name=self.name, guest_system="x86_64-linux", toplevel=toplevel)
        self.spec = SimpleNamespace(host=host, pace=Pace())
        self.console = Console()

    @property
    def as_machine(self) -> Machine:
        """It, for those who ask for a machine."""
        return cast("Machine", self)

    def run(self, command: str, *, timeout_s: float = 0.0, stdin: bytes = b"") -> CommandResult:
        self.commands.append(command)
        found = next((self.answers[key] for key in self.answers if key in command), "")
        if isinstance(found, Exception):
            raise found
        status, text = (found, "") if isinstance(found, int) else (0, found)
        return CommandResult(
            command=command,
            exit_status=status,
            stdout=text.encode(),
            stderr=b"",
            duration_s=0.0,
        )

    def deadline(self, limit_s: float) -> Deadline:
        return Deadline.after(limit_s)

    def invalidate(self) -> None:
        self.epoch += 1

    def condemn(self, reason: str) -> None:
        self.condemned = reason
