"""A network of a cluster at work: its switch, its own voice, and a stranger beside it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Interface, IPv6Network
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.cluster.capture import Capture
from pytest_nixos.machine.cluster.outside import Outside, outside
from pytest_nixos.machine.cluster.plan import Place, PlannedNetwork
from pytest_nixos.machine.cluster.switch import Switch
from pytest_nixos.machine.network.advertise import Advertisement, advertisement, is_solicitation
from pytest_nixos.machine.network.dhcp import Lease, answer
from pytest_nixos.machine.network.frames import (
    BROADCAST,
    ArpMessage,
    UdpDatagram,
    arp_request,
    parse_frame,
    udp_datagram,
)

__all__ = ["ClusterNetwork", "cluster_network", "own_prefix", "own_voice", "port_name"]

_STRANGER = "a stranger"
_SERVER_PORT, _CLIENT_PORT = 67, 68
_BROADCAST_ADDRESS = IPv4Address("255.255.255.255")
_PREFIX_LENGTH = 64  # of a prefix that hosts make addresses of, RFC 4862
# Locally administered (IEEE 802): the network's own voice.
_OWN_HARDWARE = bytes.fromhex("02706e780001")


class ClusterNetwork:
    """A running network; made by :func:`cluster_network`.

    :param switch: carries its frames.
    :param stranger: somebody beside the members.
    :param capture: what has gone over it.
    """

    def __init__(
        self, planned: PlannedNetwork, switch: Switch, stranger: Outside, capture: Capture
    ) -> None:
        self.name = planned.name
        self.places = planned.places
        self.outside = planned.outside
        self.switch = switch
        self.stranger = stranger
        self.capture = capture

    def ports_of(self, host: str) -> tuple[str, ...]:
        """Return the names of a host's ports; none where it is not on this network."""
        return tuple(port_name(place) for place in self.places_of(host))

    def places_of(self, host: str) -> tuple[Place, ...]:
        """Return where a host is on this network, once for each of its cards there."""
        return tuple(place for place in self.places if place.host == host)

    def place_of(self, host: str) -> Place | None:
        """Return where a host is on this network, ``None`` where it is not."""
        return next((place for place in self.places if place.host == host), None)

    def round_trip_s(
        self, source: str, target: str, *, size: int = 0, limit_s: float = 1.0
    ) -> float | None:
        """Ask a member for its hardware address in another one's name, and see the answer arrive
        there.

        :param size: bytes that the question has at least, behind its Ethernet header.
        :return: seconds from one to the other and back; ``None`` where nothing arrives in time.
        :raises MachineError: if one of them is not on this network.
        """
        asker, asked = self._known(source), self._known(target)
        hardware = bytes.fromhex(asker.card.hardware.replace(":", ""))
        question = arp_request(hardware, asker.address.ip, asked.address.ip).ljust(14 + size, b"\0")

        def is_answer(frame: bytes) -> bool:
            said = parse_frame(frame)
            return (
                isinstance(said, ArpMessage)
                and said.is_reply
                and (said.sender, said.target) == (asked.address.ip, asker.address.ip)
            )

        return self.switch.round_trip_s(
            port_name(asker), port_name(asked), question, is_answer, limit_s=limit_s
        )

    def _known(self, host: str) -> Place:
        place = self.place_of(host)
        if place is None:
            raise MachineError(
                f"{host}: is not on network {self.name}",
                remedy=f"its members are {', '.join(dict.fromkeys(p.host for p in self.places))}",
            )
        return place


@contextlib.contextmanager
def cluster_network(planned: PlannedNetwork, directory: Path) -> Iterator[ClusterNetwork]:
    """Have a network with a stranger beside it; members' ports are added later.

    :param directory: on a short path, for sockets.
    :raises MachineError: if this machine lets its user have no network namespace.
    """
    capture = Capture()
    with (
        outside(directory, [planned.outside]) as stranger,
        Switch(capture=capture, answer=own_voice(planned)) as switch,
    ):
        switch.add_interface(_STRANGER, stranger.wire)
        yield ClusterNetwork(planned, switch, stranger, capture)


def own_prefix(planned: PlannedNetwork) -> IPv6Network:
    """Return the IPv6 prefix of a network, of which its members take addresses by themselves: the
    one that they declare where all declare the same, else a unique local one (RFC 4193) that is
    made of the network's name.
    """
    declared = {
        address.network
        for place in planned.places
        for address in place.card.interfaces
        if isinstance(address, IPv6Interface)
        and not address.is_link_local
        and address.network.prefixlen == _PREFIX_LENGTH
    }
    if len(declared) == 1:
        return declared.pop()
    digest = hashlib.sha256(planned.name.encode()).digest()
    return IPv6Network((b"\xfd" + digest[:7] + bytes(8), _PREFIX_LENGTH))


def own_voice(planned: PlannedNetwork) -> Callable[[str, bytes], bytes | None]:
    """Return what answers members whose card has no declared address: each has its own by DHCP, for
    ever, and who asks for a router is told the network's prefix. No router is offered.
    """
    leases = {port_name(place): _lease(planned, place) for place in planned.places}
    waiting = {port_name(place) for place in planned.places if place.is_leased}
    offer = advertisement(_OWN_HARDWARE, Advertisement(prefix=own_prefix(planned)))

    def reply(port: str, frame: bytes) -> bytes | None:
        if port in waiting and is_solicitation(frame):
            return offer
        lease = leases.get(port)
        asked = parse_frame(frame)
        if lease is None or not isinstance(asked, UdpDatagram):
            return None
        if asked.destination_port != _SERVER_PORT:
            return None
        payload = answer(asked.payload, lease)
        if payload is None:
            return None
        return udp_datagram(
            (BROADCAST, _OWN_HARDWARE),
            UdpDatagram(
                source=lease.server,
                destination=_BROADCAST_ADDRESS,
                source_port=_SERVER_PORT,
                destination_port=_CLIENT_PORT,
                payload=payload,
            ),
        )

    return reply


def port_name(place: Place) -> str:
    """Name the port of a card."""
    return f"{place.host}.{place.number}"


def _lease(planned: PlannedNetwork, place: Place) -> Lease:
    return Lease(
        server=planned.outside.ip,
        guest=place.address,
        hardware=bytes.fromhex(place.card.hardware.replace(":", "")),
    )
