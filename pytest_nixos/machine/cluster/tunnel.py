"""A WireGuard tunnel between two members, as it is seen on the networks between them.

What is told here is the wire's word, not a guest's. Messages by
<https://www.wireguard.com/protocol/>: an initiation (type 1) is answered (type 2) only by who holds
the private key that it was made for, and its sender sends data (type 4) under the answer's index
only where that answer fits its own keys, the preshared one too.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.cluster.network import ClusterNetwork
from pytest_nixos.machine.cluster.owners import End, Link

__all__ = ["ClusterTunnel", "TunnelTraffic", "tunnels_of"]

Address = IPv4Address | IPv6Address

_INITIATION, _RESPONSE, _DATA = 1, 2, 4
_SIZES = {_INITIATION: 148, _RESPONSE: 92}
_KEEPALIVE = 32  # a data message without data
_VLAN_TAGS = (0x8100, 0x88A8)
_UDP = 17
_DISCARD = 9  # a port on which nobody has to listen (RFC 863)
_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelTraffic:
    """What was seen of a tunnel.

    :param handshakes: how many came to their end: both sides hold the keys that the other expects.
    :param messages: how many messages with data went under these handshakes, encrypted.
    :param in_clear: packets from or to the tunnel's addresses that went beside it, unencrypted:
        ``10.100.0.1 > 10.100.0.2 on 192.168.1.0/24``, each once.
    """

    handshakes: int
    messages: int
    in_clear: tuple[str, ...]


class ClusterTunnel:
    """A WireGuard tunnel between two members of a cluster; they have test keys.

    :param links: both directions.
    :param addresses: of all members' network cards.
    :param refusal: why it cannot work on this machine, ``""`` where it can.
    """

    def __init__(
        self,
        links: tuple[Link, Link],
        *,
        machines: Mapping[str, Machine],
        networks: Sequence[ClusterNetwork],
        addresses: Mapping[str, frozenset[Address]],
        refusal: str = "",
    ) -> None:
        self._links = links
        self._machines = machines
        self._networks = networks
        self._addresses = addresses
        self._refusal = refusal

    def __repr__(self) -> str:
        return f"<tunnel {self.name}>"

    @property
    def ends(self) -> tuple[End, End]:
        """Both interfaces, each with its `host` and what it declares (`tunnel`)."""
        return self._links[0].end, self._links[1].end

    @property
    def name(self) -> str:
        """Both ends: ``wg0 of a - wg0 of b``."""
        return " - ".join(end.name for end in self.ends)

    def traffic(self, *, since_s: float = 0.0) -> TunnelTraffic:
        """Tell what was seen of it on the networks that its members share, at most as far back as
        :meth:`Cluster.capture` goes.

        :param since_s: from when on, seconds since 1970 (``time.time()``).
        """
        messages: list[tuple[str, bytes, bool]] = []
        in_clear: dict[str, None] = {}
        for network in self._shared():
            for at_s, frame in network.capture.frames():
                packet = _read(frame)
                if packet is None:
                    continue
                if self._is_in_clear(packet):
                    if at_s < since_s:
                        continue
                    in_clear[f"{packet.source} > {packet.destination} on {network.name}"] = None
                elif (sender := self._sender(packet)) is not None:
                    # Data goes under handshakes of before, too.
                    messages.append((sender, packet.datagram, at_s >= since_s))
        handshakes, data = _count(messages)
        return TunnelTraffic(handshakes=handshakes, messages=data, in_clear=tuple(in_clear))

    def handshake(self, *, limit_s: float = 30.0) -> bool:
        """Send packets into the tunnel until a handshake has come to its end, and say whether one
        has: also one of before, as far back as :meth:`traffic` sees.

        :param limit_s: seconds to wait for it.
        :raises MachineError: if no tunnel can work on this machine, or no end knows an address that
            is reached through it.
        """
        if self._refusal:
            raise MachineError(f"{self.name}: {self._refusal}", remedy=_KERNEL_REMEDY)
        pokes = [poke for link in self._links if (poke := _poke(link)) is not None]
        if not pokes:
            raise MachineError(
                f"{self.name}: neither end has an address that the other reaches through it",
                remedy="declare the addresses of both interfaces, and allowedIPs of both peers",
            )

        def ask() -> bool | None:
            for host, command in pokes:
                self._machines[host].run(command)
            return self.traffic().handshakes > 0 or None

        return bool(poll(ask, deadline=Deadline.after(limit_s), interval_s=_AGAIN_S))

    def _shared(self) -> Iterator[ClusterNetwork]:
        hosts = {end.host for end in self.ends}
        for network in self._networks:
            if hosts <= {place.host for place in network.places}:
                yield network

    def _is_in_clear(self, packet: _Packet) -> bool:
        inside = {address for end in self.ends for address in end.tunnel.ips}
        return bool(inside & {packet.source, packet.destination})

    def _sender(self, packet: _Packet) -> str | None:
        """Return the host that sent a datagram from one end to the other, by ports of theirs;
        ``None`` of anything else.
        """
        one, other = self.ends
        for end, far in ((one, other), (other, one)):
            goes = (
                packet.source in self._addresses[end.host]
                and packet.destination in self._addresses[far.host]
                and end.tunnel.port in (None, packet.source_port)
                and far.tunnel.port in (None, packet.destination_port)
            )
            if goes and packet.datagram:
                return end.host
        return None


_KERNEL_REMEDY = (
    'load it on this machine (modprobe wireguard), or have VMs: nixos_cluster(..., backend="vm")'
)


def tunnels_of(
    links: Iterable[Link],
    *,
    machines: Mapping[str, Machine],
    networks: Sequence[ClusterNetwork],
    addresses: Mapping[str, frozenset[Address]],
    refusal: str = "",
) -> tuple[ClusterTunnel, ...]:
    """Return the tunnels of a cluster, each once; see :class:`ClusterTunnel`."""
    found: list[tuple[Link, Link]] = []
    waiting: list[Link] = []
    for link in links:
        back = next((w for w in waiting if (w.end, w.other) == (link.other, link.end)), None)
        if back is None:
            waiting.append(link)
        else:
            found.append((back, link))
    return tuple(
        ClusterTunnel(
            pair, machines=machines, networks=networks, addresses=addresses, refusal=refusal
        )
        for pair in found
    )


def _poke(link: Link) -> tuple[str, str] | None:
    """Return who sends a packet into a tunnel, and how; ``None`` where it knows no way."""
    reached = [a for a in link.other.tunnel.ips if link.peer.allows(a)]
    if not reached:
        return None
    # Where no endpoint is declared the kernel refuses until the other side has said something.
    target = shlex.quote(f"/dev/udp/{reached[0]}/{_DISCARD}")
    return link.end.host, f"(echo >{target}) 2>&1 || true"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packet:
    source: Address
    destination: Address
    source_port: int = 0
    destination_port: int = 0
    datagram: bytes = b""


def _read(frame: bytes) -> _Packet | None:
    """Read the IP packet of a frame, tagged or not; fragments count without their content."""
    try:
        at, (kind,) = 14, struct.unpack_from("!H", frame, 12)
        while kind in _VLAN_TAGS:
            (kind,) = struct.unpack_from("!H", frame, at + 2)
            at += 4
        if kind == 0x0800:
            size = (frame[at] & 0x0F) * 4
            protocol, is_part = frame[at + 9], struct.unpack_from("!H", frame, at + 6)[0] & 0x3FFF
            ends = frame[at + 12 : at + 16], frame[at + 16 : at + 20]
        elif kind == 0x86DD:
            size, protocol, is_part = 40, frame[at + 6], 0
            ends = frame[at + 8 : at + 24], frame[at + 24 : at + 40]
        else:
            return None
        source, destination = map(ip_address, ends)
        if protocol != _UDP or is_part:
            return _Packet(source=source, destination=destination)
        ports = struct.unpack_from("!HHH", frame, at + size)
        return _Packet(
            source=source,
            destination=destination,
            source_port=ports[0],
            destination_port=ports[1],
            datagram=frame[at + size + 8 : at + size + ports[2]],
        )
    except (struct.error, IndexError, ValueError):
        return None


def _count(messages: Iterable[tuple[str, bytes, bool]]) -> tuple[int, int]:
    """Count handshakes that came to their end, and messages with data under them.

    :param messages: datagrams with the host that sent each, and whether it counts.
    """
    asked: dict[bytes, str] = {}  # index of an initiation: who sent it
    answered: dict[bytes, bytes] = {}  # index of an answer: of the initiation
    begun: dict[bytes, bool] = {}
    data: list[tuple[str, bytes]] = []
    for sender, message, counts in messages:
        kind, index, of = message[:1], message[4:8], message[8:12]
        if message[1:4] != b"\0\0\0" or len(message) < _KEEPALIVE:
            continue
        if _SIZES.get(kind[0], len(message)) != len(message):
            continue
        if kind[0] == _INITIATION:
            asked[index] = sender
        elif kind[0] == _RESPONSE and asked.get(of, sender) != sender:
            answered[index] = of
        elif kind[0] == _DATA:
            if index in answered and asked[answered[index]] == sender:
                begun.setdefault(index, counts)
            if counts and len(message) > _KEEPALIVE:
                data.append((sender, index))
    # Each side writes the other's index; an index is of who sent it.
    asker = {index: asked[answered[index]] for index in begun}
    ours = {(sender, index) for index, sender in asker.items()}
    theirs = {answered[index]: sender for index, sender in asker.items()}
    count = sum(
        (sender, index) in ours or theirs.get(index, sender) != sender for sender, index in data
    )
    return sum(begun.values()), count
