"""One port as the host machine sees it: a link with a buffer, and waits that end."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.channel.links import Link

__all__ = ["Expired", "PortStream"]

_LOOK_S = 0.2
# QEMU listens some tens of milliseconds after its start.
_RETRY_S = 0.005
_DRAIN_S = 1.0
# Of what a guest says unasked, this much is kept to look for an answer in.
_MOST_STALE = 1 << 20
T = TypeVar("T")


class Expired(Exception):
    """A wait ran out of time; the stream still holds what has come.

    It stays inside the channel, which makes of it an error that a user can see.
    """


class PortStream:
    """A connection that is made on demand, with a buffer of what has come and not been taken.

    :param link: what carries the bytes.
    :param alive: called while waiting; raises if the machine is known to have ended.
    """

    def __init__(self, link: Link, alive: Callable[[], None]) -> None:
        self.received = bytearray()
        self._link = link
        self._alive = alive

    def connect(self, deadline: Deadline) -> None:
        """Connect unless it is connected; QEMU makes the socket soon after its start.

        :raises Expired: if nobody listens by `deadline`.
        """
        while not self._link.connected:
            self._alive()
            try:
                self._link.connect()
            except OSError as err:
                if deadline.expired:
                    raise Expired(f"{self._link.name}: {err.strerror}") from err
                time.sleep(min(_RETRY_S, deadline.remaining_s))

    def disconnect(self) -> None:
        """Drop the connection and all bytes on the way."""
        self.received.clear()
        self._link.disconnect()

    def shut(self) -> None:
        """End the connection under a thread that waits on it; that thread then disconnects."""
        self._link.shut()

    def send(self, line: bytes, *, deadline: Deadline) -> None:
        """Send a line, whatever the guest says meanwhile.

        :raises Expired: if the guest does not take all of it by `deadline`.
        """
        for spoken in self._sending(line, deadline):
            if spoken:
                del self.received[:-_MOST_STALE]

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
        :raises Expired: if that is not so by `deadline`, however much comes meanwhile.
        """
        while True:
            late = deadline.expired
            parsed = parse(self.received)
            if parsed is not None:
                value, used = parsed
                del self.received[:used]
                return value
            # Looked at in each round: a guest that never stops talking keeps _wait() from doing so.
            if late:
                raise Expired(self._link.name)
            if self._wait(deadline, to_send=False)[0]:
                self._receive()

    def drain(self) -> bytes:
        """Take all that has come without waiting; of a guest that never stops talking, a part."""
        limit = Deadline.after(_DRAIN_S)
        while self._poll(select.POLLIN, 0.0) and not limit.expired:
            self._receive()
            del self.received[:-_MOST_STALE]
        stale = bytes(self.received)
        self.received.clear()
        return stale

    def _sending(self, part: bytes, deadline: Deadline) -> Iterator[bool]:
        """Send piece by piece; tell after each whether the guest has spoken."""
        rest = memoryview(part)
        while rest:
            if deadline.expired:
                raise Expired(self._link.name)
            readable, writable = self._wait(deadline, to_send=True)
            if readable:
                self._receive()
            if writable:
                rest = rest[self._send_some(rest) :]
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
                raise Expired(self._link.name)

    def _poll(self, wanted: int, limit_s: float) -> int:
        poller = select.poll()
        reading, writing = self._live().descriptors()
        if reading == writing:
            poller.register(reading, wanted)
        else:
            poller.register(reading, wanted & ~select.POLLOUT)
            if wanted & select.POLLOUT:
                poller.register(writing, select.POLLOUT)
        found = 0
        for _, event in poller.poll(1000 * limit_s):
            found |= event
        return found

    def _receive(self) -> None:
        try:
            chunk = self._live().receive()
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
            f"the machine ended: its root command channel {self._link.name} was closed",
            remedy="read the end of the machine's console",
        )

    def _live(self) -> Link:
        if not self._link.connected:
            raise TransportError(
                f"the root command channel {self._link.name} is closed",
                remedy="use the machine only while it runs",
            )
        return self._link
