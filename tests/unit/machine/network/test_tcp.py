"""A call to a small guest that speaks TCP, over a wire that may lose frames and repeat them."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.network.frames import (
    ArpMessage,
    Segment,
    TcpFlag,
    arp_reply,
    parse_frame,
    tcp_segment,
)
from pytest_nixos.machine.network.neighbour import Neighbour
from pytest_nixos.machine.network.tcp import called

GUEST, STRANGER = IPv4Address("10.0.2.15"), IPv4Address("10.0.2.77")
MAC = bytes.fromhex("525400123456")
LISTENS, REFUSES, SILENT = 22, 23, 24


class Shouting:
    """A wire to a guest that sends back what it gets in capitals, until it hears ``bye``.

    :param loses: which of the frames to it are lost, of how many; and each answer comes twice.
    """

    def __init__(self, loses: tuple[int, ...] = (), of: int = 1) -> None:
        self._loses, self._of = loses, of
        self._count = 0
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._wanted = 0
        self._next = 4_294_967_290  # its numbers wrap around soon
        self.got = b""

    @contextlib.contextmanager
    def listening(self) -> Iterator[Shouting]:
        yield self

    def close(self) -> None: ...

    def send(self, frames: list[bytes], *, deadline: Deadline) -> None:
        for raw in frames:
            frame = parse_frame(raw)
            if isinstance(frame, ArpMessage):
                self._answers.put(arp_reply(MAC, GUEST, frame.sender_mac, STRANGER))
                continue
            self._count += 1
            if self._count % self._of not in self._loses and isinstance(frame, Segment):
                self._take(frame)

    def frames(self, *, limit_s: float) -> Iterator[bytes]:
        with contextlib.suppress(queue.Empty):
            yield self._answers.get(timeout=limit_s)

    def _take(self, asked: Segment) -> None:
        if asked.destination_port == SILENT:
            return
        if asked.destination_port == REFUSES:
            self._answer(asked, TcpFlag.RST | TcpFlag.ACK)
        elif TcpFlag.SYN in asked.flags:
            self._wanted = asked.sequence + 1
            self._answer(asked, TcpFlag.SYN | TcpFlag.ACK)
            self._next = (self._next + 1) % (1 << 32)
        elif asked.payload and asked.sequence == self._wanted % (1 << 32):
            self._wanted += len(asked.payload)
            self.got += asked.payload
            ends = TcpFlag.FIN if asked.payload.endswith(b"bye") else TcpFlag(0)
            self._answer(asked, TcpFlag.ACK | ends, asked.payload.upper())
            self._next = (self._next + len(asked.payload)) % (1 << 32)
        elif asked.payload:
            self._answer(asked, TcpFlag.ACK)

    def _answer(self, asked: Segment, flags: TcpFlag, payload: bytes = b"") -> None:
        segment = replace(
            asked,
            source=GUEST,
            destination=STRANGER,
            source_port=asked.destination_port,
            destination_port=asked.source_port,
            sequence=self._next,
            acknowledgement=self._wanted % (1 << 32),
            flags=flags,
            payload=payload,
        )
        # Twice, as by a wire that repeats.
        for _ in range(2):
            self._answers.put(tcp_segment((bytes(6), MAC), segment))


def neighbour(wire: Shouting) -> Neighbour:
    made = Neighbour(wire, guest=GUEST, stranger=STRANGER)
    for _ in made.frames_until(made.send_fence(Deadline.after(60)), Deadline.after(60)):
        pass
    return made


def test_what_is_said_arrives_once_and_in_order_and_so_does_the_answer() -> None:
    wire = Shouting()
    text = b"".join(b"line %d\n" % number for number in range(1000))
    with called(neighbour(wire), LISTENS, deadline=Deadline.after(30)) as connection:
        connection.settimeout(20)
        connection.sendall(text + b"bye")
        heard = b""
        while data := connection.recv(4096):
            heard += data

    assert wire.got == text + b"bye"
    assert heard == (text + b"bye").upper()


def test_what_is_lost_is_said_again() -> None:
    wire = Shouting(loses=(0,), of=3)
    with called(neighbour(wire), LISTENS, deadline=Deadline.after(30)) as connection:
        connection.settimeout(20)
        connection.sendall(b"hear me")
        assert connection.recv(4096) == b"HEAR ME"
        connection.sendall(b"bye")
        assert connection.recv(4096) == b"BYE"
    assert wire.got == b"hear mebye"


def test_a_port_where_nobody_listens_is_told_at_once() -> None:
    with (
        pytest.raises(TransportError, match=r"nobody listens on port 23 of 10\.0\.2\.15"),
        called(neighbour(Shouting()), REFUSES, deadline=Deadline.after(30)),
    ):
        pass


def test_a_port_that_says_nothing_is_told_with_the_limit() -> None:
    with (
        pytest.raises(TransportError, match=r"does not answer on port 24 \(limit 0\.3 s\)"),
        called(neighbour(Shouting()), SILENT, deadline=Deadline.after(0.3)),
    ):
        pass
