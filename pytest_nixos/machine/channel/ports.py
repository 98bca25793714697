"""One virtserialport as the host machine sees it: a Unix socket that QEMU serves."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline

__all__ = ["Expired", "PortStream"]

_CHUNK = 1 << 18
_LOOK_S = 0.2
T = TypeVar("T")


class Expired(Exception):
    """A wait ran out of time; the stream still holds what has come.

    It stays inside the channel, which makes of it an error that a user can see.
    """


class PortStream:
    """A connection that is made on demand, with a buffer of what has come and not been taken.

    :param path: socket that QEMU listens on.
    :param alive: called while waiting; raises if the machine is known to have ended.
    """

    def __init__(self, path: Path, alive: Callable[[], None]) -> None:
        self.path = path
        self.received = bytearray()
        self._alive = alive
        self._socket: socket.socket | None = None

    def connect(self, deadline: Deadline) -> None:
        """Connect unless it is connected; QEMU makes the socket soon after its start.

        :raises Expired: if nobody listens by `deadline`.
        """
        while self._socket is None:
            self._alive()
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(self.path))
            except OSError as err:
                connection.close()
                if deadline.expired:
                    raise Expired(f"{self.path}: {err.strerror}") from err
                time.sleep(min(0.02, deadline.remaining_s))
            else:
                connection.setblocking(False)
                self._socket = connection

    def disconnect(self) -> None:
        """Drop the connection and all bytes on the way."""
        connection, self._socket = self._socket, None
        self.received.clear()
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def shut(self) -> None:
        """End the connection under a thread that waits on it; that thread then disconnects."""
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def send(self, line: bytes, *, deadline: Deadline) -> None:
        """Send a line, whatever the guest says meanwhile.

        :raises Expired: if the guest does not take all of it by `deadline`.
        """
        for _ in self._sending(line, deadline):
            pass

    def send_request(self, *parts: bytes, deadline: Deadline) -> None:
        """Send `parts` until the guest speaks: it says nothing to a whole request but its answer.

        So a word before that is a refusal, and the rest would be in vain.

        :raises Expired: as :meth:`send`.
        """
        for part in parts:
            for spoken in self._sending(part, deadline):
                if spoken:
                    return

    def take(self, parse: Callable[[bytearray], tuple[T, int] | None], *, deadline: Deadline) -> T:
        """Wait until `parse` makes something of what has come, and drop the bytes that it used.

        :param parse: gives a value and how many bytes it took, or ``None`` if it needs more.
        :raises Expired: if that is not so by `deadline`.
        """
        while True:
            parsed = parse(self.received)
            if parsed is not None:
                value, used = parsed
                del self.received[:used]
                return value
            if self._wait(deadline, to_send=False)[0]:
                self._receive()

    def drain(self) -> bytes:
        """Take all that has come without waiting."""
        while self._poll(select.POLLIN, 0.0):
            self._receive()
        stale = bytes(self.received)
        self.received.clear()
        return stale

    def _sending(self, part: bytes, deadline: Deadline) -> Iterator[bool]:
        """Send piece by piece; tell after each whether the guest has spoken."""
        rest = memoryview(part)
        while rest:
            readable, writable = self._wait(deadline, to_send=True)
            if readable:
                self._receive()
            if writable:
                rest = rest[self._send_some(rest[:_CHUNK]) :]
            yield readable

    def _send_some(self, data: memoryview) -> int:
        try:
            return self._live().send(data)
        except BlockingIOError:
            return 0
        except OSError as err:
            raise self._ended() from err

    def _wait(self, deadline: Deadline, *, to_send: bool) -> tuple[bool, bool]:
        wanted = select.POLLIN | (select.POLLOUT if to_send else 0)
        while True:
            event = self._poll(wanted, min(_LOOK_S, deadline.remaining_s))
            if event:
                return bool(event & ~select.POLLOUT), bool(event & select.POLLOUT)
            self._alive()
            if deadline.expired:
                raise Expired(str(self.path))

    def _poll(self, wanted: int, limit_s: float) -> int:
        poller = select.poll()
        poller.register(self._live(), wanted)
        events = poller.poll(1000 * limit_s)
        return events[0][1] if events else 0

    def _receive(self) -> None:
        try:
            chunk = self._live().recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as err:
            raise self._ended() from err
        if not chunk:
            raise self._ended()
        self.received += chunk

    def _ended(self) -> TransportError:
        self.disconnect()
        self._alive()
        return TransportError(
            f"the machine ended: QEMU closed the root command channel {self.path}",
            remedy="read the end of the machine's console",
        )

    def _live(self) -> socket.socket:
        if self._socket is None:
            raise TransportError(
                f"the root command channel {self.path} is closed",
                remedy="use the machine only while it runs",
            )
        return self._socket
