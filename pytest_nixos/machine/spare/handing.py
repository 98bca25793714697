"""What passes from the keeper of a paused machine to who goes on with it: facts as one line of JSON,
and descriptors beside it (unix(7), ``SCM_RIGHTS``).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import msgspec

from pytest_nixos.errors import TransportError
from pytest_nixos.machine.console import ConsoleLine
from pytest_nixos.machine.snapshot.record import GuestAtRest

__all__ = ["Handed", "HandedPort", "hand_over", "receive_handed"]

_CHUNK = 1 << 18
_MOST = 16
_LONGEST = 16 << 20


class HandedPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of the root command channel; its descriptor goes beside.

    :param session: that both ends have agreed on, ``None`` for none.
    :param serial: of its last request.
    """

    name: str
    session: str | None
    serial: int


class Handed(msgspec.Struct, frozen=True, kw_only=True):
    """A paused machine.

    :param run_dir: its directory, which stays the keeper's.
    :param pid: of the process that the keeper has started: QEMU, or the sandbox around it.
    :param paused_at_s: when its clock stopped, in seconds since 1970.
    :param guest: what it said just before.
    :param lines: its console since the snapshot.
    :param ports: in the order of their descriptors, behind that of the console's terminal.
    """

    run_dir: str
    pid: int
    paused_at_s: float
    guest: GuestAtRest
    lines: tuple[ConsoleLine, ...]
    ports: tuple[HandedPort, ...]


def hand_over(taker: socket.socket, handed: Handed, descriptors: Sequence[int]) -> None:
    """Give a machine away.

    :raises OSError: if the taker is gone.
    """
    data = msgspec.json.encode(handed) + b"\n"
    sent = socket.send_fds(taker, [data], list(descriptors))
    taker.sendall(data[sent:])


def receive_handed(keeper: socket.socket) -> tuple[Handed, tuple[int, ...]]:
    """Wait for what :func:`hand_over` gave; the descriptors are the caller's to close.

    :raises TransportError: if the keeper refuses, or is gone.
    """
    try:
        first, received, _, _ = socket.recv_fds(keeper, _CHUNK, _MOST)
    except OSError as err:
        raise _refused(err.strerror or str(err)) from err
    descriptors = tuple(received)
    try:
        for number in descriptors:
            os.set_inheritable(number, False)
        handed = _read(keeper, bytearray(first))
    except (OSError, msgspec.MsgspecError) as err:
        handed, why = None, str(err)
    else:
        why = f"{len(descriptors)} descriptors came"
    if handed is None or len(descriptors) != 1 + len(handed.ports):
        for number in descriptors:
            os.close(number)
        raise _refused(why)
    return handed, descriptors


def _read(keeper: socket.socket, data: bytearray) -> Handed:
    while not data.endswith(b"\n"):
        more = keeper.recv(_CHUNK)
        if not more or len(data) > _LONGEST:
            raise ConnectionResetError("its keeper is gone")
        data += more
    return msgspec.json.decode(data, type=Handed)


def _refused(why: str) -> TransportError:
    return TransportError(
        f"the spare is not handed over: {why}", remedy="nothing: a clone is started instead"
    )
