"""Machines that run now, as another process of the same user finds and enters them."""

from __future__ import annotations

import contextlib
import json
import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_nixos.errors import CommandTimeout, SettingsError, TransportError
from pytest_nixos.local.run_directory import living_directories
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.door.door import CARD, SOCKET, Card
from pytest_nixos.machine.door.wire import receive, send

__all__ = ["OpenDoor", "find_door", "open_doors"]

_CONNECT_S = 10.0
# What carries an answer beside the guest's own time.
_WAY_S = 30.0


class OpenDoor(msgspec.Struct, frozen=True):
    """The door of a running machine of another process; a
    :class:`~pytest_nixos.machine.command.Transport` to its guest.

    :param directory: of the door.
    """

    directory: Path
    card: Card

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command`; see :class:`~pytest_nixos.machine.command.Transport`."""
        limit_s = deadline.remaining_s
        head = {"command": command, "limit_s": limit_s if math.isfinite(limit_s) else None}
        answer, parts = self._ask(head, stdin, wait_s=limit_s + _WAY_S)
        if "error" in answer:
            kind = CommandTimeout if answer.get("late") else TransportError
            raise kind(str(answer["error"]), remedy=str(answer["remedy"]))
        stdout, stderr = parts
        return CommandResult(
            command=command,
            exit_status=int(answer["status"]),
            stdout=stdout,
            stderr=stderr,
            duration_s=float(answer["duration_s"]),
        )

    def close(self) -> None:
        """Do nothing: each command comes and goes by itself."""

    def end(self) -> None:
        """Have a kept machine end.

        :raises SettingsError: if it belongs to a run that goes on.
        :raises TransportError: if it is gone.
        """
        answer, _ = self._ask({"verb": "end"}, b"", wait_s=_WAY_S)
        if not answer.get("kept"):
            raise SettingsError(
                f"{self.card.name}: belongs to a run that goes on (process {self.card.owner})",
                remedy="end that run: Ctrl-C there; its machines end with it",
            )

    def _ask(
        self, head: Mapping[str, Any], stdin: bytes, *, wait_s: float
    ) -> tuple[Mapping[str, Any], Sequence[bytes]]:
        try:
            with socket.socket(socket.AF_UNIX) as door:
                door.settimeout(_CONNECT_S)
                door.connect(str(self.directory / SOCKET))
                door.settimeout(wait_s if math.isfinite(wait_s) else None)
                send(door, head, stdin)
                return receive(door)
        except OSError as err:
            raise TransportError(
                f"{self.card.name}: the machine is gone: {err.strerror or err}",
                remedy="pytest-nixos machines lists those that run",
            ) from err


def open_doors() -> tuple[OpenDoor, ...]:
    """List the running machines of this user that can be entered, oldest first."""
    return tuple(sorted(_found(), key=lambda door: door.card.started_at_s))


def find_door(name: str) -> OpenDoor:
    """Return the door of the running machine that people call `name`.

    :raises SettingsError: if there is none.
    """
    doors = open_doors()
    for door in doors:
        if door.card.name == name:
            return door
    running = ", ".join(door.card.name for door in doors) or "none"
    raise SettingsError(
        f"{name}: no running machine of this user has that name (running: {running})",
        remedy="write REF#HOST to start one, or a name that pytest-nixos machines lists",
    )


def _found() -> Iterator[OpenDoor]:
    for directory in living_directories():
        # One that is being made or ends is not there.
        with contextlib.suppress(OSError, ValueError, TypeError):
            yield OpenDoor(directory, Card.from_json(json.loads((directory / CARD).read_text())))
