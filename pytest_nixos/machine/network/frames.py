"""Ethernet frames as values: what a stranger on the guest's network sends, and what it hears.

Only what the prober needs: ARP (RFC 826), neighbour discovery (RFC 4861), IPv4 (RFC 791) and IPv6
(RFC 8200) without options, TCP flags (RFC 9293), UDP (RFC 768), ICMP (RFC 792, RFC 4443). The
standard library does it in less than a library would cost users to install.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

import msgspec
from msgspec.structs import replace

__all__ = [
    "BROADCAST",
    "Address",
    "ArpMessage",
    "Echo",
    "NeighbourQuestion",
    "Segment",
    "TcpFlag",
    "UdpDatagram",
    "Unreachable",
    "arp_reply",
    "arp_request",
    "checksum",
    "echo_request",
    "icmpv6_message",
    "neighbour_answer",
    "parse_frame",
    "tcp_segment",
    "tcp_segments",
    "udp_datagram",
]

BROADCAST = b"\xff" * 6
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_ICMP, _TCP, _UDP, _ICMPV6 = 1, 6, 17, 58
_ECHO_REQUEST, _ECHO_REPLY, _UNREACHABLE = {4: 8, 6: 128}, {4: 0, 6: 129}, {4: 3, 6: 1}
_NOBODY_LISTENS = {4: 3, 6: 4}
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOLICITED_OVERRIDE = 0x60000000
_ON_LINK_HOPS = 255
_ETHERNET_SIZE, _IP_SIZE = 14, {4: 20, 6: 40}
_SHORTEST_FRAME = 60
_WINDOW = 1024
_MOST_HOPS = 64


Address = IPv4Address | IPv6Address


class TcpFlag(enum.IntFlag):
    """Flags of a TCP segment."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    ACK = 0x10


class ArpMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A question for an address or the answer to one; addresses of the sender and of the one
    meant.
    """

    is_reply: bool
    sender_mac: bytes
    sender: IPv4Address
    target_mac: bytes
    target: IPv4Address


class NeighbourQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """IPv6's question for the address of a network card."""

    sender_mac: bytes
    sender: IPv6Address
    target: IPv6Address


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A TCP segment without options."""

    source: Address
    destination: Address
    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: TcpFlag
    payload: bytes = b""


class UdpDatagram(msgspec.Struct, frozen=True, kw_only=True):
    """A UDP datagram."""

    source: Address
    destination: Address
    source_port: int
    destination_port: int
    payload: bytes


class Echo(msgspec.Struct, frozen=True, kw_only=True):
    """An ICMP echo, asked or answered."""

    source: Address
    destination: Address
    is_reply: bool
    identifier: int
    number: int


class Unreachable(msgspec.Struct, frozen=True, kw_only=True):
    """An ICMP message that says that a datagram we sent did not arrive.

    :param code: as the family has it; see :attr:`nobody_listens`.
    :param protocol: of the datagram: 6 TCP, 17 UDP.
    """

    destination: Address
    code: int
    protocol: int
    source_port: int
    destination_port: int

    @property
    def nobody_listens(self) -> bool:
        """Whether it says that nobody listens on that port; what says otherwise comes from
        routers and firewalls.
        """
        return self.code == _NOBODY_LISTENS[self.destination.version]


Frame = ArpMessage | NeighbourQuestion | Segment | UdpDatagram | Echo | Unreachable


def checksum(data: bytes) -> int:
    """Sum 16-bit words as RFC 1071 does."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp_request(mac: bytes, source: IPv4Address, target: IPv4Address) -> bytes:
    """Ask everybody who has `target`."""
    return _ethernet(BROADCAST, mac, _ARP, _arp(1, mac, source, bytes(6), target))


def arp_reply(mac: bytes, source: IPv4Address, asker_mac: bytes, asker: IPv4Address) -> bytes:
    """Tell the asker that `source` is at `mac`."""
    return _ethernet(asker_mac, mac, _ARP, _arp(2, mac, source, asker_mac, asker))


def neighbour_answer(mac: bytes, source: IPv6Address, question: NeighbourQuestion) -> bytes:
    """Tell the asker that `source` is at `mac`."""
    told = struct.pack("!I", _SOLICITED_OVERRIDE) + source.packed + b"\x02\x01" + mac
    body = bytes((_ADVERTISEMENT, 0, 0, 0)) + told
    return icmpv6_message((question.sender_mac, mac), source, question.sender, body)


def icmpv6_message(
    macs: tuple[bytes, bytes], source: IPv6Address, destination: IPv6Address, body: bytes
) -> bytes:
    """Build an ICMPv6 message of the link, whose hop limit proves that it comes from there.

    :param macs: hardware addresses of receiver and sender.
    :param body: the message with a zero checksum.
    """
    total = checksum(_pseudo_head(source, destination, _ICMPV6, len(body)) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return _ip(macs, source, destination, _ICMPV6, body, hops=_ON_LINK_HOPS)


def tcp_segment(macs: tuple[bytes, bytes], segment: Segment) -> bytes:
    """Build a segment.

    :param macs: of the receiver and of the sender.
    """
    head = struct.pack(
        "!HHIIBBHHH",
        segment.source_port,
        segment.destination_port,
        segment.sequence,
        segment.acknowledgement,
        5 << 4,
        segment.flags,
        _WINDOW,
        0,
        0,
    )
    whole = head + segment.payload
    total = checksum(_pseudo_head(segment.source, segment.destination, _TCP, len(whole)) + whole)
    body = whole[:16] + struct.pack("!H", total) + whole[18:]
    return _ip(macs, segment.source, segment.destination, _TCP, body)


def tcp_segments(
    macs: tuple[bytes, bytes], segment: Segment, ports: Iterable[int]
) -> Iterator[bytes]:
    """Build the same segment to each of many ports of its destination; nothing but the port and the
    checksum differs, so neither is built anew.
    """
    whole = tcp_segment(macs, replace(segment, destination_port=0))
    start = _ETHERNET_SIZE + _IP_SIZE[segment.source.version]
    begin, middle, rest = whole[: start + 2], whole[start + 4 : start + 16], whole[start + 18 :]
    (total,) = struct.unpack_from("!H", whole, start + 16)
    unported = ~total & 0xFFFF
    for port in ports:
        added = unported + port
        total = ~((added & 0xFFFF) + (added >> 16)) & 0xFFFF
        yield b"".join((begin, port.to_bytes(2, "big"), middle, total.to_bytes(2, "big"), rest))


def udp_datagram(macs: tuple[bytes, bytes], datagram: UdpDatagram) -> bytes:
    """Build a datagram; see :func:`tcp_segment` for `macs`."""
    size = 8 + len(datagram.payload)
    ports = struct.pack("!HHH", datagram.source_port, datagram.destination_port, size)
    pseudo = _pseudo_head(datagram.source, datagram.destination, _UDP, size)
    # A sum of 0 means "none" (RFC 768), so 0 itself is sent as its other form.
    total = checksum(pseudo + ports + b"\0\0" + datagram.payload) or 0xFFFF
    body = ports + struct.pack("!H", total) + datagram.payload
    return _ip(macs, datagram.source, datagram.destination, _UDP, body)


def echo_request(macs: tuple[bytes, bytes], echo: Echo) -> bytes:
    """Build an ICMP echo request; see :func:`tcp_segment` for `macs`."""
    payload = b"pytest-nixos"
    version = echo.source.version
    numbers = struct.pack("!HH", echo.identifier, echo.number)
    body = bytes((_ECHO_REQUEST[version], 0, 0, 0)) + numbers + payload
    protocol = _ICMP if version == 4 else _ICMPV6
    pseudo = _pseudo_head(echo.source, echo.destination, protocol, len(body))
    total = checksum(body if version == 4 else pseudo + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    return _ip(macs, echo.source, echo.destination, protocol, body)


def parse_frame(frame: bytes) -> Frame | None:
    """Read a frame that a guest sent.

    :return: ``None`` for everything that is cut short, malformed or of no interest.
    """
    try:
        (kind,) = struct.unpack_from("!H", frame, 12)
        if kind == _ARP:
            return _parse_arp(frame[14:])
        if kind == _IPV4:
            return _parse_ipv4(frame[14:])
        if kind == _IPV6:
            return _parse_ipv6(frame[14:], sender_mac=frame[6:12])
    except struct.error:
        return None
    return None


def _arp(
    operation: int, mac: bytes, source: IPv4Address, target_mac: bytes, target: IPv4Address
) -> bytes:
    head = struct.pack("!HHBBH", 1, _IPV4, 6, 4, operation)
    return head + mac + source.packed + target_mac + target.packed


def _ethernet(destination: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    frame = destination + source + struct.pack("!H", kind) + payload
    return frame.ljust(_SHORTEST_FRAME, b"\0")


def _ip(
    macs: tuple[bytes, bytes],
    source: Address,
    destination: Address,
    protocol: int,
    body: bytes,
    *,
    hops: int = _MOST_HOPS,
) -> bytes:
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, hops)
        return _ethernet(*macs, _IPV6, head + source.packed + destination.packed + body)
    size = 20 + len(body)
    begin = struct.pack("!BBHHHBB", 0x45, 0, size, 0, 0x4000, _MOST_HOPS, protocol)
    addresses = source.packed + destination.packed
    head = begin + struct.pack("!H", checksum(begin + b"\0\0" + addresses)) + addresses
    return _ethernet(*macs, _IPV4, head + body)


def _pseudo_head(source: Address, destination: Address, protocol: int, size: int) -> bytes:
    if source.version == 6:
        return source.packed + destination.packed + struct.pack("!II", size, protocol)
    return source.packed + destination.packed + struct.pack("!BBH", 0, protocol, size)


def _parse_arp(data: bytes) -> ArpMessage | None:
    hardware, protocol, *sizes, operation = struct.unpack_from("!HHBBH", data)
    if (hardware, protocol, sizes) != (1, _IPV4, [6, 4]) or operation not in (1, 2):
        return None
    sender_mac, sender, target_mac, target = struct.unpack_from("!6s4s6s4s", data, 8)
    return ArpMessage(
        is_reply=operation == 2,
        sender_mac=sender_mac,
        sender=IPv4Address(sender),
        target_mac=target_mac,
        target=IPv4Address(target),
    )


def _parse_ipv4(data: bytes) -> Frame | None:
    version, size, fragment, protocol = struct.unpack_from("!BxHxxHxB", data)
    head_size = (version & 0xF) * 4
    if version >> 4 != 4 or head_size < 20 or fragment & 0x1FFF:
        return None
    source, destination = (IPv4Address(part) for part in struct.unpack_from("!4s4s", data, 12))
    return _parse_body(source, destination, protocol, data[head_size:size])


def _parse_ipv6(data: bytes, *, sender_mac: bytes) -> Frame | None:
    first, size, protocol = struct.unpack_from("!IHB", data)
    if first >> 28 != 6:
        return None
    source, destination = (IPv6Address(part) for part in struct.unpack_from("!16s16s", data, 8))
    body = data[40 : 40 + size]
    if protocol == _ICMPV6 and body[:1] == bytes((_SOLICITATION,)) and len(body) >= 24:
        target = IPv6Address(body[8:24])
        return NeighbourQuestion(sender_mac=sender_mac, sender=source, target=target)
    return _parse_body(source, destination, protocol, body)


def _parse_body(source: Address, destination: Address, protocol: int, body: bytes) -> Frame | None:
    if protocol == _TCP:
        return _parse_tcp(source, destination, body)
    if protocol == _UDP:
        source_port, destination_port = struct.unpack_from("!HH4x", body)
        return UdpDatagram(
            source=source,
            destination=destination,
            source_port=source_port,
            destination_port=destination_port,
            payload=body[8:],
        )
    own = _ICMP if source.version == 4 else _ICMPV6
    return _parse_icmp(source, destination, body) if protocol == own else None


def _parse_tcp(source: Address, destination: Address, body: bytes) -> Segment:
    source_port, destination_port, sequence, acknowledgement, size, flags = struct.unpack_from(
        "!HHIIBB6x", body
    )
    return Segment(
        source=source,
        destination=destination,
        source_port=source_port,
        destination_port=destination_port,
        sequence=sequence,
        acknowledgement=acknowledgement,
        flags=TcpFlag(flags & 0x17),
        payload=body[(size >> 4) * 4 :],
    )


def _parse_icmp(source: Address, destination: Address, body: bytes) -> Echo | Unreachable | None:
    version = source.version
    kind, code, first, second = struct.unpack_from("!BBxxHH", body)
    if kind in (_ECHO_REQUEST[version], _ECHO_REPLY[version]):
        return Echo(
            source=source,
            destination=destination,
            is_reply=kind == _ECHO_REPLY[version],
            identifier=first,
            number=second,
        )
    if kind != _UNREACHABLE[version]:
        return None
    (begin,) = struct.unpack_from("!B", body, 8)
    (protocol,) = struct.unpack_from("!B", body, 17 if version == 4 else 14)
    head_size = (begin & 0xF) * 4 if version == 4 else 40
    source_port, destination_port = struct.unpack_from("!HH", body, 8 + head_size)
    return Unreachable(
        destination=destination,
        code=code,
        protocol=protocol,
        source_port=source_port,
        destination_port=destination_port,
    )
