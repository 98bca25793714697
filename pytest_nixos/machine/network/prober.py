"""What a stranger on a VM's network sees of its ports, tried with frames of our own.

No root, no change to the host and none to its network: QEMU's filters let a userland host stand
beside QEMU's on the run script's own netdev. ARP requests serve as fences: a guest takes frames in
order, so once it answers the request behind a batch of probes it has judged them all, however slow
it is.

QEMU's user network hears the guest's answers too. It resets TCP connections that it did not make,
and hands UDP answers to the host machine's own port of the same number unless the network is
restricted; so UDP probes come from port 9, "discard".
"""

from __future__ import annotations

import abc
import itertools
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.network.frames import (
    Address,
    ArpMessage,
    Echo,
    Frame,
    NeighbourQuestion,
    Segment,
    TcpFlag,
    UdpDatagram,
    Unreachable,
    arp_reply,
    arp_request,
    echo_request,
    neighbour_answer,
    parse_frame,
    tcp_segment,
    udp_datagram,
)
from pytest_nixos.machine.network.guest_address import OuterAddresses
from pytest_nixos.machine.network.wire import Wire, filter_argv
from pytest_nixos.machine.survey import Survey, View

__all__ = ["FrameProber"]

# What QEMU's user network gives to its only guest, and an address that it leaves free; qemu(1),
# "-netdev user".
_GUEST = IPv4Address("10.0.2.15")
_STRANGER = IPv4Address("10.0.2.77")
# Locally administered; the last two bytes number the fences.
_MAC = b"\x02\x6e\x78\x73"
_STRANGER_SUFFIX = 0x6E78_7361
_UDP_SOURCE = 9
_TCP, _UDP = 6, 17
# Half of the ring of a virtio network card, so that no frame is dropped for want of room.
_BATCH = 128
_FENCE_AGAIN_S = 2.0
# Linux lets one ICMP error a second go to one address, and a full accept queue is read in about
# that time.
_TURN_S = 1.1
_TURNS = 3
_LAST_WORDS_S = 0.1


class FrameProber:
    """A stranger on the network of a VM that was started with :meth:`qemu_argv`; one for a
    machine's whole life.

    Several threads may use it; they take turns.

    :param link: the wire to the guest.
    :param guest: its address; the default is what QEMU's DHCP server gives.
    :param stranger: our address on the same network; it must be free.
    :param turn_s: seconds between two tries of a silent port.
    """

    def __init__(
        self,
        link: Wire,
        *,
        guest: IPv4Address = _GUEST,
        stranger: IPv4Address = _STRANGER,
        turn_s: float = _TURN_S,
    ) -> None:
        self._link = link
        self._turn = threading.Lock()
        self._guest = guest
        self._stranger = stranger
        self._turn_s = turn_s

    def face(self, guest: IPv4Interface) -> None:
        """Stand beside a guest whose address is not what QEMU's DHCP server gives: a static one.

        We take the highest address of its network that is not its own.
        """
        if guest.ip == self._guest:
            return
        last = int(guest.network.broadcast_address)
        free = (IPv4Address(last - offset) for offset in (1, 2, 3))
        with self._turn:
            self._guest = guest.ip
            self._stranger = next(address for address in free if address != guest.ip)

    @staticmethod
    def qemu_argv(run_dir: Path) -> tuple[str, ...]:
        """Build the QEMU arguments that let a stranger onto the guest's network."""
        return filter_argv(run_dir)

    @staticmethod
    def applicable(run_script: str) -> bool:
        """Tell whether a run script has the netdev that the arguments name; QEMU refuses them
        otherwise.
        """
        return (
            re.search(r"-netdev\s+[\"']?user,(?:[^\s\"']*,)?id=user\.0(?![\w.-])", run_script)
            is not None
        )

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Send a SYN to each port: open on SYN/ACK, closed on RST, filtered on silence or an
        ICMP error.

        Silent ports are tried three times.

        :raises TransportError: if the guest is not on its network, or time ran out.
        """
        with self._turn, self._link.listening() as link:
            return _TcpScan(self._meet(link, deadline), self._turn_s, deadline).run(ports)

    def probe_udp(
        self, ports: Sequence[int], *, deadline: Deadline, payload: bytes = b""
    ) -> Mapping[int, PortState]:
        """Send `payload` to each port: open on an answer, closed if nobody listens, else filtered.

        A service that does not answer `payload` looks filtered. Linux sends about six ICMP errors
        at once and then one a second, so of many closed ports only some are recognised.

        :raises TransportError: as :meth:`probe_tcp`.
        """
        with self._turn, self._link.listening() as link:
            return _UdpScan(self._meet(link, deadline), self._turn_s, deadline, payload).run(ports)

    def ping(self, *, deadline: Deadline) -> bool:
        """Tell whether the guest answers an ICMP echo request.

        :raises TransportError: as :meth:`probe_tcp`.
        """
        with self._turn, self._link.listening() as link:
            return (
                _EchoScan(self._meet(link, deadline), self._turn_s, deadline).run([1])[1]
                is PortState.OPEN
            )

    def survey(
        self,
        wanted: Survey,
        guest: OuterAddresses,
        *,
        deadline: Deadline,
    ) -> tuple[View, ...]:
        """Try all that `wanted` names, by IPv4 and, where the guest has an address, by IPv6.

        :raises TransportError: as :meth:`probe_tcp`.
        """
        self.face(guest.v4)
        found = []
        with self._turn, self._link.listening() as link:
            neighbour = self._meet(link, deadline)
            found.append(self._view(neighbour, wanted, guest.interface, "ip", deadline))
            if guest.v6 is not None:
                neighbour.speak_ipv6(guest.v6)
                found.append(self._view(neighbour, wanted, guest.interface, "ip6", deadline))
        return tuple(found)

    def _view(
        self, neighbour: _Neighbour, wanted: Survey, interface: str, family: str, deadline: Deadline
    ) -> View:
        every = _TcpScan(neighbour, self._turn_s, deadline).run(wanted.tcp, turns=1)
        silent = [p for p in wanted.patient_tcp if every.get(p) is not PortState.OPEN]
        again = _TcpScan(neighbour, self._turn_s, deadline).run(silent)
        udp = _UdpScan(neighbour, self._turn_s, deadline, b"").run(wanted.udp)
        echo = _EchoScan(neighbour, self._turn_s, deadline).run([1])[1]
        return View(
            interface=interface,
            family=family,
            stranger=neighbour.own,
            guest=neighbour.peer,
            tcp={**every, **again},
            udp=udp,
            answers_ping=echo is PortState.OPEN,
        )

    def close(self) -> None:
        """Leave the network for good."""
        self._link.close()

    def _meet(self, link: Wire, deadline: Deadline) -> _Neighbour:
        neighbour = _Neighbour(link, guest=self._guest, stranger=self._stranger)
        for _ in neighbour.frames_until_fence(deadline):
            pass
        return neighbour


class _Neighbour:
    """The guest as seen on the wire; answers its questions for our network card.

    `own` and `peer` are the addresses that probes go between, ours and the guest's.
    """

    def __init__(self, link: Wire, *, guest: IPv4Address, stranger: IPv4Address) -> None:
        self.own: Address = stranger
        self.peer: Address = guest
        self.link = link
        self.guest = guest
        self.stranger = stranger
        self.own_mac = _MAC + b"\0\0"
        self.mac = bytes(6)
        self._fence_numbers = itertools.count(secrets.randbelow(1 << 15))

    def speak_ipv6(self, guest: IPv6Interface) -> None:
        """Send probes by IPv6 from now on; fences stay ARP's, which no packet filter of IP
        drops.
        """
        self.peer = guest.ip
        self.own = IPv6Address(int(guest.network.network_address) + _STRANGER_SUFFIX)

    @property
    def macs(self) -> tuple[bytes, bytes]:
        """Receiver and sender of our frames."""
        return self.mac, self.own_mac

    def frames_until_fence(self, deadline: Deadline) -> Iterator[Frame]:
        """Ask for the guest's address and give what comes until it answers.

        :raises TransportError: if it does not by `deadline`.
        """
        again_s = _FENCE_AGAIN_S / 8
        while True:
            again_s = min(2 * again_s, _FENCE_AGAIN_S)
            fence_mac = _MAC + (next(self._fence_numbers) & 0xFFFF).to_bytes(2, "big")
            fence = arp_request(fence_mac, self.stranger, self.guest)
            self.link.send([fence], deadline=deadline)
            turn = deadline.within(again_s)
            while not turn.expired:
                for frame in self._frames(turn):
                    if isinstance(frame, NeighbourQuestion):
                        continue
                    if isinstance(frame, ArpMessage):
                        if self._answers(frame, fence_mac):
                            return
                    else:
                        yield frame
            if deadline.expired:
                raise TransportError(
                    f"no guest answers at {self.guest} on its network (limit {deadline.limit_s:g} s)",
                    remedy="look at the guest's addresses (ip address); probing needs IPv4 by DHCP, or"
                    " the address that the host declares",
                )

    def frames_for(self, span: Deadline) -> Iterator[Frame]:
        """Give what comes until `span` is over."""
        while not span.expired:
            for frame in self._frames(span):
                if not isinstance(frame, ArpMessage | NeighbourQuestion):
                    yield frame

    def _frames(self, span: Deadline) -> Iterator[Frame]:
        for raw in self.link.frames(limit_s=min(0.2, span.remaining_s)):
            frame = parse_frame(raw)
            if (
                isinstance(frame, ArpMessage)
                and not frame.is_reply
                and frame.target == self.stranger
            ):
                answer = arp_reply(self.own_mac, self.stranger, frame.sender_mac, frame.sender)
                self.link.send([answer], deadline=span.within(_FENCE_AGAIN_S))
            elif isinstance(frame, NeighbourQuestion):
                if frame.target == self.own:
                    told = neighbour_answer(self.own_mac, frame.target, frame)
                    self.link.send([told], deadline=span.within(_FENCE_AGAIN_S))
            elif frame is not None:
                yield frame

    def _answers(self, message: ArpMessage, fence_mac: bytes) -> bool:
        if not message.is_reply or message.sender != self.guest:
            return False
        self.mac = message.sender_mac
        return message.target_mac == fence_mac


class _Scan(abc.ABC):
    """Probes of one kind: subclasses build a probe and read an answer."""

    def __init__(self, neighbour: _Neighbour, turn_s: float, deadline: Deadline) -> None:
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


class _TcpScan(_Scan):
    def __init__(self, neighbour: _Neighbour, turn_s: float, deadline: Deadline) -> None:
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


class _UdpScan(_Scan):
    def __init__(
        self, neighbour: _Neighbour, turn_s: float, deadline: Deadline, payload: bytes
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


class _EchoScan(_Scan):
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
