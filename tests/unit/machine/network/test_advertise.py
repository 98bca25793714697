"""Router advertisements, as RFC 4861 writes them."""

from __future__ import annotations

import socket
import threading
import time
from ipaddress import IPv6Address, IPv6Network

import pytest

from pytest_nixos.machine.network import advertise
from pytest_nixos.machine.network.advertise import (
    Advertisement,
    Advertiser,
    advertisement,
    is_solicitation,
    link_local,
)
from pytest_nixos.machine.network.frames import checksum

MAC = bytes.fromhex("02005e005301")
PREFIX = IPv6Network("fd00:233::/64")


def test_an_advertisement_offers_addresses_and_no_way_out() -> None:
    frame = advertisement(MAC, Advertisement(prefix=PREFIX))
    ip, body = frame[14:54], frame[54:]

    assert frame[:6] == bytes.fromhex("333300000001") and frame[6:12] == MAC
    assert ip[6:8] == bytes([58, 255])
    assert IPv6Address(ip[8:24]) == link_local(MAC) == IPv6Address("fe80::5eff:fe00:5301")
    assert body[0] == 134 and body[6:8] == b"\0\0"
    assert body[16:24] == b"\x01\x01" + MAC
    assert body[24:28] == bytes([3, 4, 64, 0xC0]) and body[28:36] == b"\xff" * 8
    assert IPv6Address(body[40:56]) == PREFIX.network_address
    pseudo = ip[8:40] + len(body).to_bytes(4, "big") + b"\0\0\0\x3a"
    assert checksum(pseudo + body) == 0


def test_a_router_with_a_name_server() -> None:
    server = IPv6Address("fd00:233::1")
    body = advertisement(MAC, Advertisement(prefix=PREFIX, is_router=True, name_server=server))[54:]

    assert body[6:8] == (1800).to_bytes(2, "big")
    assert body[56:58] == bytes([25, 3]) and IPv6Address(body[64:80]) == server


def test_only_a_solicitation_is_one() -> None:
    head = b"\0" * 12 + b"\x86\xdd" + b"\0" * 6 + b"\x3a" + b"\0" * 33
    assert is_solicitation(head + b"\x85\0\0\0")
    assert not is_solicitation(head + b"\x86\0\0\0")
    assert not is_solicitation(head)
    assert not is_solicitation(b"")


def test_an_advertiser_answers_and_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monkeypatch.setattr(advertise, "in_network_of", lambda *_: (ours, MAC))
    offer = Advertisement(prefix=PREFIX)
    advertiser = Advertiser(1, "outside0", offer)
    with guest:
        guest.settimeout(10.0)
        assert guest.recv(1514) == advertisement(MAC, offer)
        solicitation = b"\0" * 12 + b"\x86\xdd" + b"\0" * 6 + b"\x3a" + b"\0" * 33 + b"\x85\0\0\0"
        guest.send(solicitation)
        assert guest.recv(1514) == advertisement(MAC, offer)
        begun_s = time.monotonic()
        advertiser.close()
        assert time.monotonic() - begun_s < 0.3
        advertiser.close()
    assert not [t for t in threading.enumerate() if t.name == "nixos-router"]
