"""The small internet of a run: names and the time, and what is no question gets no answer."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from dnslib import QTYPE, RCODE, DNSRecord

from pytest_nixos.machine.network.stand_in import answer_name, answer_time, name_resolver

SERVER = IPv4Address("10.233.0.1")


def ask(name: str, kind: str = "A") -> DNSRecord:
    reply = answer_name(DNSRecord.question(name, kind).pack(), SERVER)
    assert reply is not None
    return DNSRecord.parse(reply)


def test_every_name_has_the_servers_address() -> None:
    reply = ask("acme-v02.api.letsencrypt.org")
    assert [str(record.rdata) for record in reply.rr] == [str(SERVER)]
    assert reply.header.qr == 1


def test_a_name_has_no_address_of_the_other_family() -> None:
    reply = ask("example.org", "AAAA")
    assert reply.header.rcode == RCODE.NOERROR and reply.rr == []


@pytest.mark.parametrize("name", ["db", "a.invalid", "printer.local", "2.0.233.10.in-addr.arpa"])
def test_what_no_internet_has_is_not_there(name: str) -> None:
    assert ask(name).header.rcode == RCODE.NXDOMAIN


@pytest.mark.parametrize("packet", [b"", b"\0" * 12, b"\xff" * 40, b"\x01\x02garbage"])
def test_what_is_no_question_gets_no_answer(packet: bytes) -> None:
    assert answer_name(packet, SERVER) is None
    assert answer_time(packet, 0.0) is None


def test_an_answer_is_no_question() -> None:
    reply = DNSRecord.question("example.org", QTYPE.A and "A").reply().pack()
    assert answer_name(reply, SERVER) is None


def test_the_time_is_told_as_sntp_clients_check_it() -> None:
    sent = struct.pack("!II", 1, 2)
    reply = answer_time(b"\x23" + b"\0" * 39 + sent, 1_700_000_000.5)

    assert reply is not None and len(reply) == 48
    assert reply[0] & 7 == 4 and reply[0] >> 6 == 0 and 0 < reply[1] < 16
    assert reply[24:32] == sent
    seconds, fraction = struct.unpack("!II", reply[40:48])
    assert seconds == 1_700_000_000 + 2_208_988_800 and fraction == 1 << 31


def test_a_guest_that_leaves_its_resolver_alone_finds_the_server(tmp_path: Path) -> None:
    name_resolver(tmp_path, SERVER)
    assert (tmp_path / "etc/resolv.conf").read_text() == "nameserver 10.233.0.1\n"
