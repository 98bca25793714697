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

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.network.frame_scans import EchoScan, PortScan, TcpScan, UdpScan, scan
from pytest_nixos.machine.network.guest_address import OuterAddresses
from pytest_nixos.machine.network.neighbour import Ends, Neighbour
from pytest_nixos.machine.network.tcp import called
from pytest_nixos.machine.network.wire import Wire
from pytest_nixos.machine.survey import Survey, View

__all__ = ["FrameProber"]

# What QEMU's user network gives to its only guest, and an address that it leaves free; qemu(1),
# "-netdev user".
_GUEST = IPv4Address("10.0.2.15")
_STRANGER = IPv4Address("10.0.2.77")
# Linux lets one ICMP error a second go to one address, and a full accept queue is read in about
# that time.
_TURN_S = 1.1
# A guest with this address answers at once, however slow it is.
_MEETING_S = 60.0


class FrameProber:
    """A stranger on the network of a VM that was started with :func:`~pytest_nixos.machine.network.wire.filter_argv`; one for a
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

    def probe_tcp(self, ports: Sequence[int], *, deadline: Deadline) -> Mapping[int, PortState]:
        """Send a SYN to each port: open on SYN/ACK, closed on RST, filtered on silence or an
        ICMP error.

        Silent ports are tried three times.

        :raises TransportError: if the guest is not on its network, or time ran out.
        """
        return self._scanned(lambda ends: TcpScan(ends, ports), deadline)

    def probe_udp(
        self, ports: Sequence[int], *, deadline: Deadline, payload: bytes = b""
    ) -> Mapping[int, PortState]:
        """Send `payload` to each port: open on an answer, closed if nobody listens, else filtered.

        A service that does not answer `payload` looks filtered. Linux sends about six ICMP errors
        at once and then one a second, so of many closed ports only some are recognised.

        :raises TransportError: as :meth:`probe_tcp`.
        """
        return self._scanned(lambda ends: UdpScan(ends, ports, payload), deadline)

    def ping(self, *, deadline: Deadline) -> bool:
        """Tell whether the guest answers an ICMP echo request.

        :raises TransportError: as :meth:`probe_tcp`.
        """
        found = self._scanned(lambda ends: EchoScan(ends, [1]), deadline)
        return found[1] is PortState.OPEN

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
        with self._turn, self._link.listening() as link:
            neighbour = self._meet(link, deadline)
            ends = [neighbour.v4]
            if guest.v6 is not None:
                ends.append(neighbour.speak_ipv6(guest.v6))
            # What the guest says of many ports may use up what it says of others: one after the other.
            every = [TcpScan(one, wanted.tcp) for one in ends]
            for tcp in every:
                scan(neighbour, [tcp], turns=1, turn_s=self._turn_s, deadline=deadline)
            again = [
                TcpScan(
                    tcp.ends,
                    [p for p in wanted.patient_tcp if tcp.states.get(p) is not PortState.OPEN],
                )
                for tcp in every
            ]
            udp = [UdpScan(one, wanted.udp) for one in ends]
            echo = [EchoScan(one, [1]) for one in ends]
            together = [*again, *udp, *echo]
            scan(neighbour, together, turn_s=self._turn_s, deadline=deadline)
        return tuple(
            View(
                interface=guest.interface,
                family="ip" if one.peer.version == 4 else "ip6",
                stranger=one.own,
                guest=one.peer,
                tcp={**every[n].states, **again[n].states},
                udp=udp[n].states,
                answers_ping=echo[n].states[1] is PortState.OPEN,
            )
            for n, one in enumerate(ends)
        )

    @contextlib.contextmanager
    def call(self, port: int, *, deadline: Deadline) -> Iterator[socket.socket]:
        """Give a stream socket that is connected with a TCP port of the guest; QEMU's user network
        must not hear the answers, see :func:`~pytest_nixos.machine.qemu.qmp.alone_with_guest`.

        :raises TransportError: if nobody accepts the call by `deadline`.
        """
        with (
            self._turn,
            self._link.listening() as link,
            called(self._meet(link, deadline), port, deadline=deadline) as connection,
        ):
            yield connection

    def stands_beside(self, guest: OuterAddresses, *, deadline: Deadline) -> bool:
        """Whether it is this interface of the guest that answers on our network; a guest answers
        for its other interfaces' addresses too.

        :raises TransportError: if the machine ended.
        """
        self.face(guest.v4)
        with self._turn, self._link.listening() as link:
            try:
                return self._meet(link, deadline).mac == guest.mac
            except TransportError:
                if not deadline.expired:
                    raise
                return False

    def close(self) -> None:
        """Leave the network for good."""
        self._link.close()

    def _scanned(
        self, make: Callable[[Ends], PortScan], deadline: Deadline
    ) -> Mapping[int, PortState]:
        with self._turn, self._link.listening() as link:
            neighbour = self._meet(link, deadline)
            ports = make(neighbour.v4)
            scan(neighbour, [ports], turn_s=self._turn_s, deadline=deadline)
            return ports.states

    def _meet(self, link: Wire, deadline: Deadline) -> Neighbour:
        neighbour = Neighbour(link, guest=self._guest, stranger=self._stranger)
        meeting = deadline.within(_MEETING_S)
        for _ in neighbour.frames_until(neighbour.send_fence(meeting), meeting):
            pass
        return neighbour
