"""The DHCP answers that a guest gets, and what is not answered."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Interface

import pytest

from pytest_nixos.machine.network.dhcp import Lease, answer

LEASE = Lease(server=IPv4Address("10.233.0.1"), guest=IPv4Interface("10.233.0.2/24"))
GUEST = LEASE.guest.ip.packed
SERVER = LEASE.server.packed
OTHER = IPv4Address("10.0.0.9").packed
MAC = b"\x02\0\0\0\0\x01" + bytes(10)
DISCOVER, OFFER, REQUEST, ACK, NAK, RELEASE, INFORM = 1, 2, 3, 5, 6, 7, 8


def message(kind: int, *options: tuple[int, bytes], ciaddr: bytes = bytes(4)) -> bytes:
    header = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0xCAFE, 3, 0x8000) + ciaddr + bytes(12) + MAC
    given = [(53, bytes([kind])), *options]
    body = b"".join(bytes([code, len(value)]) + value for code, value in given)
    return header + bytes(192) + b"\x63\x82\x53\x63" + b"\0" + body + b"\xff"


def parsed(reply: bytes) -> tuple[bytes, dict[int, bytes]]:
    """The address that a reply gives, and its options."""
    assert reply[0] == 2
    assert struct.unpack("!I", reply[4:8]) == (0xCAFE,)
    assert reply[28:44] == MAC
    assert reply[236:240] == b"\x63\x82\x53\x63"
    options, rest = {}, reply[240:]
    while rest[0] != 255:
        code, length = rest[0], rest[1]
        options[code], rest = rest[2 : 2 + length], rest[2 + length :]
    return reply[16:20], options


def test_a_discovery_is_offered_the_one_address_without_a_way_out() -> None:
    address, options = parsed(answer(message(DISCOVER), LEASE) or b"")
    assert address == GUEST
    assert options == {
        53: bytes([OFFER]),
        54: SERVER,
        1: bytes([255, 255, 255, 0]),
        51: b"\xff\xff\xff\xff",
    }


def test_rapid_commit_saves_a_round_trip() -> None:
    address, options = parsed(answer(message(DISCOVER, (80, b"")), LEASE) or b"")
    assert (address, options[53], options[80]) == (GUEST, bytes([ACK]), b"")


@pytest.mark.parametrize(
    "request_", [message(REQUEST, (50, GUEST), (54, SERVER)), message(REQUEST, ciaddr=GUEST)]
)
def test_the_address_is_confirmed(request_: bytes) -> None:
    address, options = parsed(answer(request_, LEASE) or b"")
    assert (address, options[53]) == (GUEST, bytes([ACK]))


def test_another_address_is_refused() -> None:
    address, options = parsed(answer(message(REQUEST, (50, OTHER)), LEASE) or b"")
    assert (address, options) == (bytes(4), {53: bytes([NAK]), 54: SERVER})


def test_who_only_asks_for_settings_gets_no_lease() -> None:
    address, options = parsed(answer(message(INFORM, ciaddr=GUEST), LEASE) or b"")
    assert address == bytes(4)
    assert 51 not in options


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(300),
        message(DISCOVER)[:239],
        message(RELEASE),
        message(REQUEST, (54, OTHER)),
        b"\x02" + message(DISCOVER)[1:],
        message(DISCOVER)[:240] + b"\x35",
        message(DISCOVER)[:240] + b"\x35\x09\x01",
        message(DISCOVER)[:240] + b"\x35\x00\xff",
    ],
)
def test_nothing_else_is_answered(packet: bytes) -> None:
    assert answer(packet, LEASE) is None
