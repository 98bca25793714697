"""Spares that wait, as the process finds them that wants a machine."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from pytest_nixos.errors import NixosError
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.door.door import SOCKET
from pytest_nixos.machine.door.visitor import OpenDoor, open_doors
from pytest_nixos.machine.door.wire import send
from pytest_nixos.machine.spare.handing import Handed, HandedPort, receive_handed
from pytest_nixos.machine.spare.taken import TakenProcess

__all__ = ["Claimed", "claim", "end_spares", "spares"]

_CONNECT_S = 5.0
_END_S = 10.0
_LOOK_S = 0.02


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A paused machine that is this process's to go on with, and nobody else's.

    :param keeper: connection to the process that owns it; its end ends the machine.
    :param terminal: descriptor of its console's terminal.
    :param ports: of the root command channel, each with its descriptor.
    """

    handed: Handed
    keeper: socket.socket
    terminal: int
    ports: Mapping[str, tuple[int, HandedPort]]

    @property
    def run_dir(self) -> Path:
        """Directory of the machine."""
        return Path(self.handed.run_dir)

    def process(self, console: Console, answer: Callable[[str], str]) -> TakenProcess:
        """Make what the machine lives in, as its :class:`Lifetime` follows it; what is told on the
        console from now on goes to `console`.
        """
        return TakenProcess(
            self.keeper,
            pid=self.handed.pid,
            terminal=self.terminal,
            console=console,
            answer=answer,
        )


def spares(key: str | None = None) -> tuple[OpenDoor, ...]:
    """List the spares of this user, oldest first.

    :param key: of those that are wanted, ``None`` for all.
    """
    return tuple(
        door for door in open_doors() if door.card.spare and key in (None, door.card.spare)
    )


def claim(key: str, *, saved_at_s: float) -> Claimed | None:
    """Take over a spare; ``None`` where none waits or somebody else was sooner.

    :param key: of what it has to be, all that shapes it.
    :param saved_at_s: of its snapshot.
    """
    for door in spares(key):
        if not door.card.waits:
            continue
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(_CONNECT_S)
            connection.connect(str(door.directory / SOCKET))
            send(connection, {"verb": "take", "key": key, "saved_at_s": saved_at_s})
            handed, (terminal, *descriptors) = receive_handed(connection)
        except (OSError, NixosError):
            connection.close()
            continue
        connection.settimeout(None)
        named = {
            port.name: (number, port)
            for number, port in zip(descriptors, handed.ports, strict=True)
        }
        return Claimed(handed=handed, keeper=connection, terminal=terminal, ports=named)
    return None


def end_spares(key: str | None = None, *, owner: int | None = None) -> bool:
    """End spares and wait for that; return whether there was one.

    :param key: as for :func:`spares`.
    :param owner: only those that belong to this process.
    """
    doors = [door for door in spares(key) if owner in (None, door.card.owner)]
    for door in doors:
        with contextlib.suppress(NixosError):
            door.end()
    end_s = time.monotonic() + _END_S
    while any(map(_stands, doors)) and time.monotonic() < end_s:
        time.sleep(_LOOK_S)
    return bool(doors)


def _stands(door: OpenDoor) -> bool:
    return os.path.lexists(door.directory)
