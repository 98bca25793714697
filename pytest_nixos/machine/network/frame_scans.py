"""Probes of a guest's ports with frames of our own: by TCP, by UDP, and by echo."""

from __future__ import annotations

import abc
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice

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
    tcp_segments,
    udp_datagram,
)
from pytest_nixos.machine.network.neighbour import Ends, Neighbour

__all__ = ["EchoScan", "PortScan", "TcpScan", "UdpScan", "scan"]

_UDP_SOURCE = 9
_TCP, _UDP = 6, 17
# Two of them and their fences are under way at once, so that the guest never waits for the next; they
# fit the ring of a virtio network card (256), so that no frame is dropped for want of room.
_BATCH = 96
_TURNS = 3
_LAST_WORDS_S = 0.1


def scan(
    neighbour: Neighbour,
    scans: Sequence[PortScan],
    *,
    turn_s: float,
    deadline: Deadline,
    turns: int = _TURNS,
) -> None:
    """Probe the ports of all scans, turn by turn, until each has spoken or was silent in every turn.

    :param turn_s: seconds from one try of a silent port to the next.
    :raises TransportError: if the guest is not on its network, or time ran out.
    """
    for turn in range(turns):
        asked = [one for one in scans if one.is_waiting]
        if not asked:
            return
        began_s = time.monotonic()
        frames = chain.from_iterable(one.next_turn(neighbour.macs) for one in asked)
        _send(neighbour, frames, scans, deadline)
        is_last = turn == turns - 1
        rest_s = 0.0 if is_last else turn_s - (time.monotonic() - began_s)
        if not any(one.is_waiting for one in asked):
            return
        for frame in neighbour.frames_for(deadline.within(max(_LAST_WORDS_S, rest_s))):
            _note(neighbour, frame, scans, deadline)
            if not any(one.is_waiting for one in asked):
                return


def _send(
    neighbour: Neighbour, frames: Iterator[bytes], scans: Sequence[PortScan], deadline: Deadline
) -> None:
    tried, before = 0, None
    while batch := list(islice(frames, _BATCH)):
        if deadline.expired:
            raise TransportError(
                f"probing its ports was not done after {deadline.limit_s:g} s ({tried} tried)",
                remedy="probe fewer ports, or allow more time",
            )
        neighbour.link.send(batch, deadline=deadline)
        tried += len(batch)
        fence = neighbour.send_fence(deadline)
        if before is not None:
            _note_until(neighbour, before, scans, deadline)
        before = fence
    if before is not None:
        _note_until(neighbour, before, scans, deadline)


def _note_until(
    neighbour: Neighbour, fence: int, scans: Sequence[PortScan], deadline: Deadline
) -> None:
    for frame in neighbour.frames_until(fence, deadline):
        _note(neighbour, frame, scans, deadline)


def _note(
    neighbour: Neighbour, frame: Frame, scans: Sequence[PortScan], deadline: Deadline
) -> None:
    goodbye = next(
        (words for one in scans if (words := one.hear(frame, neighbour)) is not None), None
    )
    if goodbye:
        neighbour.link.send(goodbye, deadline=deadline)


class PortScan(abc.ABC):
    """Ports that get probes of one kind; subclasses build a probe and read an answer.

    :param ends: the addresses that the probes go between.
    """

    def __init__(self, ends: Ends, ports: Sequence[int]) -> None:
        self.ends = ends
        self.source_port = 32_768 + secrets.randbelow(27_000)
        self._silent = dict.fromkeys(ports)
        self._states = dict.fromkeys(ports, PortState.FILTERED)

    @property
    def states(self) -> Mapping[int, PortState]:
        """What each port is by now; silence counts as filtered."""
        return self._states

    @property
    def is_waiting(self) -> bool:
        """Whether some port has not spoken."""
        return bool(self._silent)

    def next_turn(self, macs: tuple[bytes, bytes]) -> Iterator[bytes]:
        """Build a probe for each port that has not spoken.

        :param macs: of the receiver and of the sender.
        """
        self.source_port += 1
        return self.probes(list(self._silent), macs)

    def hear(self, frame: Frame, neighbour: Neighbour) -> list[bytes] | None:
        """Take what a frame tells; return what politeness asks for, ``None`` where it is for somebody
        else.
        """
        if isinstance(frame, ArpMessage | NeighbourQuestion):
            return None
        if frame.destination != self.ends.own:
            return None
        answer = self.read(frame)
        if answer is None:
            return None
        port, state = answer
        if port in self._silent:
            del self._silent[port]
            self._states[port] = state
        return self.farewell(frame, neighbour.macs)

    @abc.abstractmethod
    def probes(self, ports: Sequence[int], macs: tuple[bytes, bytes]) -> Iterator[bytes]:
        """Build the frame that asks, for each port."""

    @abc.abstractmethod
    def read(self, frame: Frame) -> tuple[int, PortState] | None:
        """Read what a frame to us tells of which port."""

    def farewell(self, frame: Frame, macs: tuple[bytes, bytes]) -> list[bytes]:
        """Build what politeness asks for after an answer."""
        del frame, macs
        return []


class TcpScan(PortScan):
    """A SYN to each port, and a reset to those that answer."""

    def __init__(self, ends: Ends, ports: Sequence[int]) -> None:
        super().__init__(ends, ports)
        self._sequence = secrets.randbits(32)

    def probes(self, ports: Sequence[int], macs: tuple[bytes, bytes]) -> Iterator[bytes]:
        return tcp_segments(macs, self._segment(0, self._sequence, TcpFlag.SYN), ports)

    def read(self, frame: Frame) -> tuple[int, PortState] | None:
        if isinstance(frame, Unreachable) and self._is_ours(frame):
            return frame.destination_port, PortState.FILTERED
        if not isinstance(frame, Segment) or frame.source != self.ends.peer:
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

    def farewell(self, frame: Frame, macs: tuple[bytes, bytes]) -> list[bytes]:
        if isinstance(frame, Segment) and TcpFlag.SYN in frame.flags:
            reset = self._segment(frame.source_port, frame.acknowledgement, TcpFlag.RST)
            return [tcp_segment(macs, reset)]
        return []

    def _is_ours(self, frame: Unreachable) -> bool:
        return frame.protocol == _TCP and frame.source_port == self.source_port

    def _segment(self, port: int, sequence: int, flags: TcpFlag) -> Segment:
        return Segment(
            source=self.ends.own,
            destination=self.ends.peer,
            source_port=self.source_port,
            destination_port=port,
            sequence=sequence,
            acknowledgement=0,
            flags=flags,
        )


class UdpScan(PortScan):
    """A datagram to each port.

    :param payload: what it holds.
    """

    def __init__(self, ends: Ends, ports: Sequence[int], payload: bytes = b"") -> None:
        super().__init__(ends, ports)
        self._payload = payload

    def probes(self, ports: Sequence[int], macs: tuple[bytes, bytes]) -> Iterator[bytes]:
        for port in ports:
            datagram = UdpDatagram(
                source=self.ends.own,
                destination=self.ends.peer,
                source_port=_UDP_SOURCE,
                destination_port=port,
                payload=self._payload,
            )
            yield udp_datagram(macs, datagram)

    def read(self, frame: Frame) -> tuple[int, PortState] | None:
        if isinstance(frame, UdpDatagram) and frame.source == self.ends.peer:
            return (
                (frame.source_port, PortState.OPEN)
                if frame.destination_port == _UDP_SOURCE
                else None
            )
        if not isinstance(frame, Unreachable) or frame.protocol != _UDP:
            return None
        state = PortState.CLOSED if frame.nobody_listens else PortState.FILTERED
        return frame.destination_port, state


class EchoScan(PortScan):
    """The "port" is the number of the echo."""

    def probes(self, ports: Sequence[int], macs: tuple[bytes, bytes]) -> Iterator[bytes]:
        for port in ports:
            echo = Echo(
                source=self.ends.own,
                destination=self.ends.peer,
                is_reply=False,
                identifier=self.source_port,
                number=port,
            )
            yield echo_request(macs, echo)

    def read(self, frame: Frame) -> tuple[int, PortState] | None:
        if isinstance(frame, Echo) and frame.is_reply and frame.identifier == self.source_port:
            return frame.number, PortState.OPEN
        return None
