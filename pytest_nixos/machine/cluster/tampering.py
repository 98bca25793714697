"""What a gateway that is half dead and a name server that is wrong do to a frame.

Ethernet and 802.1Q heads, and where IPv4 (RFC 791, 3.1) and IPv6 (RFC 8200, 3) have the receiver's
address; DNS is dnslib's.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from dnslib import QTYPE, RR, A, DNSHeader, DNSRecord

from pytest_nixos.machine.network.frames import UdpDatagram, parse_frame, udp_datagram

__all__ = ["Address", "is_passed_on", "with_wrong_answer"]

Address = IPv4Address | IPv6Address

_IS_GROUP = 1  # of a hardware address's first byte: broadcast and multicast
_TAGGED, _VLAN_TAG = b"\x81\x00", 4
_IPV4, _IPV4_RECEIVER = b"\x08\x00", 16
_IPV6, _IPV6_RECEIVER = b"\x86\xdd", 24
_KIND = 12
_DNS_PORT = 53
_TTL_S = 5


def is_passed_on(frame: bytes, own: Collection[Address]) -> bool:
    """Whether a frame to somebody holds a packet that is for somebody else.

    :param own: the receiver's addresses; another IPv6 address with the interface identifier of one
        of these is its own too, and so is every link-local one.
    """
    receiver = _receiver(frame)
    if receiver is None or receiver in own:
        return False
    if isinstance(receiver, IPv4Address):
        return True
    identifiers = {a.packed[8:] for a in own if isinstance(a, IPv6Address)}
    return not receiver.is_link_local and receiver.packed[8:] not in identifiers


def with_wrong_answer(frame: bytes, address: IPv4Address) -> bytes:
    """Return a name server's answer with another address in it, and any other frame as it is.

    A question for IPv6 addresses has none in its answer then.
    """
    said = parse_frame(frame)
    if not isinstance(said, UdpDatagram) or said.source_port != _DNS_PORT:
        return frame
    try:
        answer = DNSRecord.parse(said.payload)
    except Exception:  # noqa: BLE001 - dnslib raises whatever a malformed packet leads it to
        return frame
    if not answer.header.qr or not answer.questions:
        return frame
    if answer.q.qtype not in (QTYPE.A, QTYPE.AAAA):
        return frame
    head = DNSHeader(id=answer.header.id, qr=1, ra=1, rd=answer.header.rd)
    wrong = DNSRecord(head, questions=answer.questions)
    if answer.q.qtype == QTYPE.A:
        wrong.add_answer(RR(answer.q.qname, QTYPE.A, rdata=A(str(address)), ttl=_TTL_S))
    datagram = UdpDatagram(
        source=said.source,
        destination=said.destination,
        source_port=said.source_port,
        destination_port=said.destination_port,
        payload=bytes(wrong.pack()),
    )
    return udp_datagram((frame[:6], frame[6:12]), datagram)


def _receiver(frame: bytes) -> Address | None:
    if len(frame) <= _KIND or frame[0] & _IS_GROUP:
        return None
    tag = _VLAN_TAG if frame[_KIND : _KIND + 2] == _TAGGED else 0
    kind, packet = frame[_KIND + tag : _KIND + tag + 2], frame[_KIND + tag + 2 :]
    if kind == _IPV4 and len(packet) >= _IPV4_RECEIVER + 4:
        return IPv4Address(packet[_IPV4_RECEIVER : _IPV4_RECEIVER + 4])
    if kind == _IPV6 and len(packet) >= _IPV6_RECEIVER + 16:
        return IPv6Address(packet[_IPV6_RECEIVER : _IPV6_RECEIVER + 16])
    return None
