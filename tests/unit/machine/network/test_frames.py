"""Frames as values: known bytes, round trips, and garbage."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from msgspec.structs import replace

from pytest_nixos.machine.network.frames import (
    BROADCAST,
    Address,
    ArpMessage,
    Echo,
    NeighbourQuestion,
    Segment,
    TcpFlag,
    UdpDatagram,
    Unreachable,
    arp_reply,
    arp_request,
    checksum,
    echo_request,
    neighbour_answer,
    parse_frame,
    tcp_segment,
    tcp_segments,
    udp_datagram,
)

GUEST, STRANGER = IPv4Address("10.0.2.15"), IPv4Address("10.0.2.77")
GUEST_MAC, OWN_MAC = bytes.fromhex("525400123456"), bytes.fromhex("026e78730000")
MACS = (GUEST_MAC, OWN_MAC)


def syn(**changes: int) -> Segment:
    made = Segment(
        source=STRANGER,
        destination=GUEST,
        flags=TcpFlag.SYN,
        source_port=40000,
        destination_port=22,
        sequence=7,
        acknowledgement=0,
    )
    return replace(made, **changes)


def test_checksum_of_rfc_1071s_example() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert checksum(b"\x01") == 0xFEFF


def test_arp_request_is_the_documented_bytes() -> None:
    frame = arp_request(OWN_MAC, STRANGER, GUEST)
    assert frame[:14] == BROADCAST + OWN_MAC + b"\x08\x06"
    assert frame[14:42].hex() == ("0001080006040001026e787300000a00024d0000000000000a00020f")
    assert len(frame) == 60


def test_syn_is_the_documented_bytes() -> None:
    frame = tcp_segment(MACS, syn())
    assert frame[:14] == GUEST_MAC + OWN_MAC + b"\x08\x00"
    assert frame[14:34].hex() == "4500002800004000400622750a00024d0a00020f"
    assert frame[34:54].hex() == "9c400016000000070000000050020400f7290000"


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_checksums_hold_for_the_receiver(protocol: str) -> None:
    if protocol == "tcp":
        frame, number, size = tcp_segment(MACS, syn(sequence=0xFFFFFFFF)), 6, 20
    elif protocol == "udp":
        datagram = UdpDatagram(
            source=STRANGER, destination=GUEST, source_port=9, destination_port=53, payload=b"odd"
        )
        frame, number, size = udp_datagram(MACS, datagram), 17, 11
    else:
        echo = Echo(source=STRANGER, destination=GUEST, is_reply=False, identifier=5, number=6)
        frame, number, size = echo_request(MACS, echo), 1, 20
    assert checksum(frame[14:34]) == 0
    pseudo = STRANGER.packed + GUEST.packed + struct.pack("!BBH", 0, number, size)
    assert checksum((b"" if protocol == "icmp" else pseudo) + frame[34 : 34 + size]) == 0


def test_what_is_built_is_read_back() -> None:
    assert parse_frame(tcp_segment(MACS, syn())) == syn()
    datagram = UdpDatagram(
        source=STRANGER, destination=GUEST, source_port=9, destination_port=53, payload=b"hi"
    )
    assert parse_frame(udp_datagram(MACS, datagram)) == datagram
    echo = Echo(source=STRANGER, destination=GUEST, is_reply=False, identifier=5, number=6)
    assert parse_frame(echo_request(MACS, echo)) == echo
    assert parse_frame(arp_reply(OWN_MAC, STRANGER, GUEST_MAC, GUEST)) == ArpMessage(
        is_reply=True, sender_mac=OWN_MAC, sender=STRANGER, target_mac=GUEST_MAC, target=GUEST
    )


def test_unreachable_names_the_datagram_that_did_not_arrive() -> None:
    original = tcp_segment(MACS, syn())[14:42]
    icmp = b"\x03\x0d\0\0\0\0\0\0" + original
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0)
    frame = OWN_MAC + GUEST_MAC + b"\x08\0" + head + GUEST.packed + STRANGER.packed + icmp
    assert parse_frame(frame) == Unreachable(
        destination=STRANGER, code=13, protocol=6, source_port=40000, destination_port=22
    )


def test_garbage_is_no_frame_and_no_error() -> None:
    chance = random.Random(1)
    frame = tcp_segment(MACS, syn())
    for size in range(54):
        assert parse_frame(frame[:size]) is None
    for _ in range(2000):
        parse_frame(frame[:12] + chance.choice([b"\x08\0\x45", b"\x08\x06"]) + chance.randbytes(48))


def test_later_fragments_have_no_ports() -> None:
    frame = bytearray(tcp_segment(MACS, syn()))
    frame[20:22] = b"\x00\x05"
    assert parse_frame(bytes(frame)) is None


STRANGER6, GUEST6 = IPv6Address("fe80::6e78:7361"), IPv6Address("fe80::5054:ff:fe12:3456")


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_what_is_built_for_ipv6_is_read_back_with_a_right_checksum(protocol: str) -> None:
    built: Segment | UdpDatagram | Echo
    if protocol == "tcp":
        built, number = replace(syn(), source=STRANGER6, destination=GUEST6), 6
        frame = tcp_segment(MACS, built)
    elif protocol == "udp":
        built = UdpDatagram(
            source=STRANGER6, destination=GUEST6, source_port=9, destination_port=53, payload=b"odd"
        )
        frame, number = udp_datagram(MACS, built), 17
    else:
        built = Echo(source=STRANGER6, destination=GUEST6, is_reply=False, identifier=5, number=6)
        frame, number = echo_request(MACS, built), 58
    assert parse_frame(frame) == built
    (size,) = struct.unpack_from("!H", frame, 18)
    pseudo = STRANGER6.packed + GUEST6.packed + struct.pack("!II", size, number)
    assert checksum(pseudo + frame[54 : 54 + size]) == 0


def test_a_question_for_our_card_is_answered_as_rfc_4861_wants() -> None:
    question = b"\x87\0\0\0\0\0\0\0" + STRANGER6.packed
    head = struct.pack("!IHBB", 6 << 28, len(question), 58, 255) + GUEST6.packed + STRANGER6.packed
    found = parse_frame(OWN_MAC + GUEST_MAC + b"\x86\xdd" + head + question)
    assert found == NeighbourQuestion(sender_mac=GUEST_MAC, sender=GUEST6, target=STRANGER6)
    assert isinstance(found, NeighbourQuestion)
    answer = neighbour_answer(OWN_MAC, STRANGER6, found)
    assert answer[:12] == GUEST_MAC + OWN_MAC
    assert answer[21] == 255  # what was forwarded is no answer
    assert answer[54] == 136
    assert answer[58] == 0x60
    assert answer[62:78] == STRANGER6.packed
    assert answer[78:86] == b"\x02\x01" + OWN_MAC
    pseudo = STRANGER6.packed + GUEST6.packed + struct.pack("!II", 32, 58)
    assert checksum(pseudo + answer[54:86]) == 0


@pytest.mark.parametrize(("code", "nobody"), [(4, True), (1, False)])
def test_unreachable_of_ipv6_names_the_datagram(code: int, nobody: bool) -> None:
    datagram = UdpDatagram(
        source=STRANGER6, destination=GUEST6, source_port=9, destination_port=53, payload=b""
    )
    icmp = bytes((1, code)) + bytes(6) + udp_datagram(MACS, datagram)[14:62]
    head = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 64) + GUEST6.packed + STRANGER6.packed
    found = parse_frame(OWN_MAC + GUEST_MAC + b"\x86\xdd" + head + icmp)
    assert isinstance(found, Unreachable)
    assert (found.protocol, found.source_port, found.destination_port) == (17, 9, 53)
    assert found.nobody_listens is nobody


@pytest.mark.parametrize("family", [IPv4Address, IPv6Address])
def test_segments_to_many_ports_are_those_to_each(family: type[Address]) -> None:
    macs = (b"\2" * 6, b"\4" * 6)
    segment = replace(syn(), source=family(0x0A00024D), destination=family(0x0A00020F))
    ports = [1, 255, 256, *range(997, 65536, 997), 65534, 65535]
    each = [tcp_segment(macs, replace(segment, destination_port=port)) for port in ports]
    assert list(tcp_segments(macs, segment, ports)) == each


def test_data_of_a_segment_is_read_as_it_was_sent() -> None:
    segment = replace(syn(), flags=TcpFlag.ACK, payload=b"odd")
    frame = tcp_segment(MACS, segment)

    assert parse_frame(frame) == segment
    assert checksum(STRANGER.packed + GUEST.packed + b"\0\x06\0\x17" + frame[34:57]) == 0
