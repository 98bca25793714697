"""Probes of a guest's ports with frames of our own: by TCP, by UDP, and by echo."""

from __future__ import annotations

import abc
import secrets
import time
from collections.abc import Mapping, Sequence

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.network.frames import (
    ArpMessage,
    Echo,
    Frame,
    NeighbourQuestion,
    Segment,
    TcpFlag,
    UdpDatagram,
    Unreachable,
    echo_request,
    tcp_segment,
    udp_datagram,
)
from pytest_nixos.machine.network.neighbour import Neighbour

__all__ = ["EchoScan", "TcpScan", "UdpScan"]

_UDP_SOURCE = 9
_TCP, _UDP = 6, 17
# Half of the ring of a virtio network card, so that no frame is dropped for want of room.
_BATCH = 128
_TURNS = 3
_LAST_WORDS_S = 0.1


class _Scan(abc.ABC):
    """Probes of one kind: subclasses build a probe and read an answer."""

    def __init__(self, neighbour: Neighbour, turn_s: float, deadline: Deadline) -> None:
        self.neighbour = neighbour
        self._turn_s = turn_s
        self.source_port = 32_768 + secrets.randbelow(27_000)
        self._deadline = deadline

    def run(self, ports: Sequence[int], *, turns: int = _TURNS) -> Mapping[int, PortState]:
        """Probe each port until it speaks or has been silent in every turn."""
        states: dict[int, PortState] = {}
        wanted = dict.fromkeys(ports)
        for turn in range(turns):
            silent = [port for port in wanted if port not in states]
            if not silent:
                break
            began_s = time.monotonic()
            self.source_port += 1
            self._probe(silent, states)
            least_s = (
                _LAST_WORDS_S if turn == turns - 1 else self._turn_s - (time.monotonic() - began_s)
            )
            self._listen_for(max(_LAST_WORDS_S, least_s), len(wanted), states)
        return {port: states.get(port, PortState.FILTERED) for port in ports}

    @abc.abstractmethod
    def probe(self, port: int) -> bytes:
        """Build the frame that asks."""

    @abc.abstractmethod
    def read(self, frame: Frame) -> tuple[int, PortState] | None:
        """Read what a frame to us tells of which port."""

    def farewell(self, frame: Frame) -> list[bytes]:
        """Build what politeness asks for after an answer."""
        del frame
        return []

    def _probe(self, ports: Sequence[int], states: dict[int, PortState]) -> None:
        for begin in range(0, len(ports), _BATCH):
            if self._deadline.expired:
                raise TransportError(
                    f"probing {len(ports)} ports was not done after {self._deadline.limit_s:g} s"
                    f" ({begin} tried)",
                    remedy="probe fewer ports, or allow more time",
                )
            batch = [self.probe(port) for port in ports[begin : begin + _BATCH]]
            self.neighbour.link.send(batch, deadline=self._deadline)
            for frame in self.neighbour.frames_until_fence(self._deadline):
                self._note(frame, states)

    def _listen_for(self, limit_s: float, wanted: int, states: dict[int, PortState]) -> None:
        if len(states) == wanted:
            return
        for frame in self.neighbour.frames_for(self._deadline.within(limit_s)):
            self._note(frame, states)
            if len(states) == wanted:
                return

    def _note(self, frame: Frame, states: dict[int, PortState]) -> None:
        if isinstance(frame, ArpMessage | NeighbourQuestion):
            return
        if frame.destination != self.neighbour.own:
            return
        answer = self.read(frame)
        if answer is None:
            return
        port, state = answer
        states.setdefault(port, state)
        if goodbye := self.farewell(frame):
            self.neighbour.link.send(goodbye, deadline=self._deadline)


class TcpScan(_Scan):
    """A SYN to each port, and a reset to those that answer."""

    def __init__(self, neighbour: Neighbour, turn_s: float, deadline: Deadline) -> None:
        super().__init__(neighbour, turn_s, deadline)
        self._sequence = secrets.randbits(32)

    def probe(self, port: int) -> bytes:
        return self._segment(port, self._sequence, TcpFlag.SYN)

    def read(self, frame: Frame) -> tuple[int, PortState] | None:
        if isinstance(frame, Unreachable) and self._is_ours(frame):
            return frame.destination_port, PortState.FILTERED
        if not isinstance(frame, Segment) or frame.source != self.neighbour.peer:
            return None
        if frame.destination_port != self.source_port:
            return None
        if frame.acknowledgement != (self._sequence + 1) & 0xFFFFFFFF:
            return None
        if TcpFlag.RST in frame.flags:
            return frame.source_port, PortState.CLOSED
        if frame.flags == TcpFlag.SYN | TcpFlag.ACK:
            return frame.source_port, PortState.OPEN
        return None

    def farewell(self, frame: Frame) -> list[bytes]:
        if isinstance(frame, Segment) and TcpFlag.SYN in frame.flags:
            return [self._segment(frame.source_port, frame.acknowledgement, TcpFlag.RST)]
        return []

    def _is_ours(self, frame: Unreachable) -> bool:
        return frame.protocol == _TCP and frame.source_port == self.source_port

    def _segment(self, port: int, sequence: int, flags: TcpFlag) -> bytes:
        segment = Segment(
            source=self.neighbour.own,
            destination=self.neighbour.peer,
            source_port=self.source_port,
            destination_port=port,
            sequence=sequence,
            acknowledgement=0,
            flags=flags,
        )
        return tcp_segment(self.neighbour.macs, segment)


class UdpScan(_Scan):
    """A datagram to each port.

    :param payload: what it holds.
    """

    def __init__(
        self, neighbour: Neighbour, turn_s: float, deadline: Deadline, payload: bytes
    ) -> None:
        super().__init__(neighbour, turn_s, deadline)
        self._payload = payload

    def probe(self, port: int) -> bytes:
        datagram = UdpDatagram(
            source=self.neighbour.own,
            destination=self.neighbour.peer,
            source_port=_UDP_SOURCE,
            destination_port=port,
            payload=self._payload,
        )
        return udp_datagram(self.neighbour.macs, datagram)

    def read(self, frame: Frame) -> tuple[int, PortState] | None:
        if isinstance(frame, UdpDatagram) and frame.source == self.neighbour.peer:
            return (
                (frame.source_port, PortState.OPEN)
                if frame.destination_port == _UDP_SOURCE
                else None
            )
        if not isinstance(frame, Unreachable) or frame.protocol != _UDP:
            return None
        state = PortState.CLOSED if frame.nobody_listens else PortState.FILTERED
        return frame.destination_port, state


class EchoScan(_Scan):
    """The "port" is the number of the echo."""

    def probe(self, port: int) -> bytes:
        echo = Echo(
            source=self.neighbour.own,
            destination=self.neighbour.peer,
            is_reply=False,
            identifier=self.source_port,
            number=port,
        )
        return echo_request(self.neighbour.macs, echo)

    def read(self, frame: Frame) -> tuple[int, PortState] | None:
        if isinstance(frame, Echo) and frame.is_reply and frame.identifier == self.source_port:
            return frame.number, PortState.OPEN
        return None
