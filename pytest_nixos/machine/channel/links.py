"""What carries the bytes of one port between the two ends of the root command channel."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Protocol

__all__ = ["FifoLink", "Link", "SocketLink", "make_fifos"]

_CHUNK = 1 << 18
_FIFO_MODE = 0o600


class Link(Protocol):
    """One port as this machine reaches it; nothing here waits."""

    @property
    def name(self) -> str:
        """Name for messages."""
        ...

    @property
    def connected(self) -> bool: ...

    def connect(self) -> None:
        """Connect once.

        :raises OSError: if nobody is there (yet).
        """
        ...

    def disconnect(self) -> None:
        """Drop the connection and all bytes on the way; never raises."""
        ...

    def shut(self) -> None:
        """Wake a thread that waits for bytes, if the kind of link can; that thread then
        disconnects.
        """
        ...

    def descriptors(self) -> tuple[int, int]:
        """Return the descriptors to poll for reading and for writing."""
        ...

    def receive(self) -> bytes:
        """Take what has come.

        :return: nothing if the other end has closed the connection.
        :raises BlockingIOError: if nothing has come.
        :raises OSError: if the connection broke.
        """
        ...

    def send(self, data: memoryview) -> int:
        """Send what fits and return how many bytes did; errors as of :meth:`receive`."""
        ...


class SocketLink:
    """A Unix socket that QEMU serves for a virtserialport.

    :param path: where QEMU listens.
    :param connection: that another process has made.
    """

    def __init__(self, path: Path, connection: socket.socket | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._socket = connection
        if connection is not None:
            connection.setblocking(False)

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        connection.setblocking(False)
        self._socket = connection

    def disconnect(self) -> None:
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def shut(self) -> None:
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def descriptors(self) -> tuple[int, int]:
        number = self._live().fileno()
        return number, number

    def receive(self) -> bytes:
        return self._live().recv(_CHUNK)

    def send(self, data: memoryview) -> int:
        return self._live().send(data[:_CHUNK])

    def let_go(self) -> int:
        """Give the connection up without closing it; return its descriptor.

        :raises OSError: if there is none.
        """
        connection, self._socket = self._live(), None
        return connection.detach()

    def _live(self) -> socket.socket:
        if self._socket is None:
            raise OSError("the link is closed")
        return self._socket


class FifoLink:
    """Two named pipes of this machine that a container sees too: one to the guest, one from it.

    Both are opened once, before the guest runs, and never by name again. Each end holds both ends
    of each pipe, so that neither ever reads as ended: that the guest is gone is found out in
    another way.

    :param directory: see :func:`make_fifos`.
    """

    def __init__(self, directory: Path, port: str) -> None:
        self.name = str(directory / port)
        self._to_guest = _open(directory / f"{port}.in")
        try:
            self._from_guest = _open(directory / f"{port}.out")
        except OSError:
            os.close(self._to_guest)
            raise
        self._closed = False
        self._connected = False

    @property
    def connected(self) -> bool:
        return self._connected

    def connect(self) -> None:
        if self._closed:
            raise OSError("the link is closed")
        self._connected = True

    def disconnect(self) -> None:
        """Take back what the guest has not read, and what it has said."""
        if self._connected:
            self._connected = False
            for descriptor in (self._to_guest, self._from_guest):
                _drain(descriptor)

    def shut(self) -> None:
        """Do nothing: whoever waits looks up five times a second."""

    def close(self) -> None:
        """Give up the pipes for good."""
        if not self._closed:
            self._closed, self._connected = True, False
            os.close(self._to_guest)
            os.close(self._from_guest)

    def descriptors(self) -> tuple[int, int]:
        self._check()
        return self._from_guest, self._to_guest

    def receive(self) -> bytes:
        self._check()
        return os.read(self._from_guest, _CHUNK)

    def send(self, data: memoryview) -> int:
        self._check()
        return os.write(self._to_guest, data[:_CHUNK])

    def _check(self) -> None:
        if not self._connected:
            raise OSError("the link is closed")


def make_fifos(directory: Path, port: str, *, owner: int) -> None:
    """Make the two named pipes of a port: ``PORT.in`` to the guest and ``PORT.out`` from it.

    :param owner: user and group id that may open them, beside root of this machine.
    :raises OSError: if they cannot be made.
    """
    for path in (directory / f"{port}.in", directory / f"{port}.out"):
        os.mkfifo(path, _FIFO_MODE)
        os.chown(path, owner, owner)


def _open(path: Path) -> int:
    # Linux lets a pipe be opened for both at once (fifo(7)), which never waits for the other end.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def _drain(descriptor: int) -> None:
    # Bounded: a guest that writes without end must not hold up whoever gives it up.
    for _ in range(16):
        try:
            if not os.read(descriptor, _CHUNK):
                return
        except OSError:
            return
