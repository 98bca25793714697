"""A TCP connection to a guest from somebody on its wire, as a socket of this process.

The kernel of this machine has no part in the guest's network, so the few rules of RFC 9293 that one
orderly connection needs are here: one segment under way at a time, sent again until it is
acknowledged; data only in order. What a wire between two processes does not do, such as losing half
of what is sent, makes it slow and not wrong.
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import threading
from collections.abc import Iterator

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.network.frames import Segment, TcpFlag, tcp_segment
from pytest_nixos.machine.network.neighbour import Neighbour

__all__ = ["called"]

_MOST_DATA = 1400
_TURN_S = 0.02
_AGAIN_S = 1.0
_JOIN_S = 5.0
_WRAP = 1 << 32
_FIRST_PORT, _PORTS = 49152, 16384


@contextlib.contextmanager
def called(neighbour: Neighbour, port: int, *, deadline: Deadline) -> Iterator[socket.socket]:
    """Give a connected stream socket whose other end is a port of the guest.

    :param neighbour: has met the guest; used by nobody else meanwhile.
    :raises TransportError: if nobody accepts the call by `deadline`, with what was answered.
    """
    ours, theirs = socket.socketpair()
    call = _Call(neighbour, port, theirs)
    with ours, theirs:
        call.open(deadline)
        thread = threading.Thread(
            target=call.carry, args=(deadline,), name="nixos-call", daemon=True
        )
        thread.start()
        try:
            yield ours
        finally:
            call.is_over.set()
            thread.join(timeout=_JOIN_S)


class _Call:
    """One connection.

    :param end: what is read here goes to the guest, and what it sends comes out here.
    """

    def __init__(self, neighbour: Neighbour, port: int, end: socket.socket) -> None:
        self.is_over = threading.Event()
        self._neighbour = neighbour
        self._port = port
        self._own_port = _FIRST_PORT + secrets.randbelow(_PORTS)
        self._end = end
        self._next = secrets.randbelow(_WRAP)  # number of the next byte that is ours to send
        self._wanted = 0  # of the next byte of the guest
        self._under_way = b""
        self._has_ended = False

    def open(self, deadline: Deadline) -> None:
        while not deadline.expired:
            self._send(TcpFlag.SYN)
            for segment in self._heard(deadline.within(_AGAIN_S)):
                if TcpFlag.RST in segment.flags:
                    raise TransportError(
                        f"nobody listens on port {self._port} of {self._neighbour.guest}",
                        remedy="look at the guest's console: did its service start?",
                    )
                if TcpFlag.SYN in segment.flags and TcpFlag.ACK in segment.flags:
                    self._next = (self._next + 1) % _WRAP
                    self._wanted = (segment.sequence + 1) % _WRAP
                    self._send(TcpFlag.ACK)
                    return
        raise TransportError(
            f"{self._neighbour.guest} does not answer on port {self._port} (limit {deadline.limit_s:g} s)",
            remedy="look at the guest's console: did its service start, and does its firewall let it be asked?",
        )

    def carry(self, deadline: Deadline) -> None:
        """Carry data both ways until either end, `deadline` or :attr:`is_over`."""
        with contextlib.suppress(OSError, TransportError):
            again = Deadline.after(_AGAIN_S)
            while not (self.is_over.is_set() or self._has_ended or deadline.expired):
                for segment in self._heard(Deadline.after(_TURN_S)):
                    self._take(segment)
                if not self._under_way and select.select([self._end], [], [], 0)[0]:
                    self._under_way = self._end.recv(_MOST_DATA)
                    if not self._under_way:
                        break
                    again = Deadline.after(0.0)
                if self._under_way and again.expired:
                    self._send(TcpFlag.ACK, self._under_way)
                    again = Deadline.after(_AGAIN_S)
        with contextlib.suppress(OSError, TransportError):
            self._send(TcpFlag.RST | TcpFlag.ACK)
            self._end.shutdown(socket.SHUT_WR)

    def _take(self, segment: Segment) -> None:
        if TcpFlag.RST in segment.flags:
            self._has_ended = True
            return
        arrived = (self._next + len(self._under_way)) % _WRAP
        if self._under_way and segment.acknowledgement == arrived:
            self._next, self._under_way = arrived, b""
        if not segment.payload and TcpFlag.FIN not in segment.flags:
            return
        if segment.sequence == self._wanted:
            self._end.sendall(segment.payload)
            ended = TcpFlag.FIN in segment.flags
            self._wanted = (self._wanted + len(segment.payload) + ended) % _WRAP
            self._has_ended = ended
        self._send(TcpFlag.ACK)

    def _heard(self, span: Deadline) -> Iterator[Segment]:
        for frame in self._neighbour.frames_for(span):
            if (
                isinstance(frame, Segment)
                and (frame.source, frame.source_port) == (self._neighbour.guest, self._port)
                and (frame.destination, frame.destination_port)
                == (self._neighbour.stranger, self._own_port)
            ):
                yield frame

    def _send(self, flags: TcpFlag, payload: bytes = b"") -> None:
        segment = Segment(
            source=self._neighbour.stranger,
            destination=self._neighbour.guest,
            source_port=self._own_port,
            destination_port=self._port,
            sequence=self._next,
            acknowledgement=self._wanted,
            flags=flags,
            payload=payload,
        )
        frame = tcp_segment(self._neighbour.macs, segment)
        self._neighbour.link.send([frame], deadline=Deadline.after(_JOIN_S))
