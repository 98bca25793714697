"""A gateway that passes nothing on, and a name server that is wrong."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from dnslib import AAAA, QTYPE, RR, A, DNSRecord

from pytest_nixos.machine.cluster.impairment import Flight, Impairment, Rule
from pytest_nixos.machine.cluster.tampering import Address, is_passed_on, with_wrong_answer
from pytest_nixos.machine.network.frames import UdpDatagram, arp_request, parse_frame, udp_datagram

CLIENT, SERVER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
WRONG = IPv4Address("192.0.2.1")
OWN: frozenset[Address] = frozenset((IPv4Address("10.0.0.1"), IPv6Address("fe80::ff:fe00:2")))


def datagram(source: str, receiver: str, payload: bytes = b"x", *, port: int = 9) -> bytes:
    kind = IPv6Address if ":" in receiver else IPv4Address
    said = UdpDatagram(
        source=kind(source),
        destination=kind(receiver),
        source_port=port,
        destination_port=4000,
        payload=payload,
    )
    return udp_datagram((SERVER, CLIENT), said)


def tagged(frame: bytes) -> bytes:
    return frame[:12] + b"\x81\x00\x00\x05" + frame[12:]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (datagram("10.0.0.2", "10.0.0.1"), False),
        (datagram("10.0.0.2", "198.51.100.1"), True),
        (tagged(datagram("10.0.0.2", "198.51.100.1")), True),
        (datagram("fd00::2", "2001:db8::1"), True),
        (datagram("fd00::2", "fd00::ff:fe00:2"), False),
        (datagram("fe80::2", "fe80::99"), False),
        (b"\xff" * 6 + datagram("10.0.0.2", "10.0.0.255")[6:], False),
        (arp_request(CLIENT, IPv4Address("10.0.0.2"), IPv4Address("10.0.0.1")), False),
        (SERVER + CLIENT + b"\x08\x00\x45", False),
        (b"", False),
    ],
)
def test_what_a_gateway_is_to_pass_on(frame: bytes, expected: bool) -> None:
    assert is_passed_on(frame, OWN) is expected


def test_a_dead_gateway_answers_for_itself_alone() -> None:
    rule = Rule(Impairment(loss=1, own_addresses=OWN), sources=None, targets=["gateway"])
    for receiver, left in (("10.0.0.1", 1), ("198.51.100.1", 0)):
        flight = Flight(frame=datagram("10.0.0.2", receiver), due_s=0.0)
        assert len(rule.befall(flight)) == left
    assert (rule.met, rule.touched) == (2, 1)


def answer(kind: str, *records: RR) -> bytes:
    reply = DNSRecord.question("db.example", kind).reply()
    for record in records:
        reply.add_answer(record)
    return datagram("10.0.0.53", "10.0.0.2", bytes(reply.pack()), port=53)


def told(frame: bytes) -> DNSRecord:
    said = parse_frame(frame)
    assert isinstance(said, UdpDatagram)
    return DNSRecord.parse(said.payload)


RIGHT = RR("db.example", QTYPE.A, rdata=A("10.0.0.7"))
RIGHT_6 = RR("db.example", QTYPE.AAAA, rdata=AAAA("fd00::7"))


def test_a_wrong_name_server_names_another_address() -> None:
    frame = answer("A", RIGHT)
    wrong = with_wrong_answer(frame, WRONG)
    assert wrong[:12] == frame[:12]
    assert [str(record.rdata) for record in told(wrong).rr] == ["192.0.2.1"]
    assert told(wrong).header.id == told(frame).header.id
    assert told(with_wrong_answer(answer("AAAA", RIGHT_6), WRONG)).rr == []
    # A name that is not there is there now.
    assert len(told(with_wrong_answer(answer("A"), WRONG)).rr) == 1


def test_other_frames_stay() -> None:
    question = bytes(DNSRecord.question("db.example").pack())
    for frame in (
        datagram("10.0.0.2", "10.0.0.53", question),
        datagram("10.0.0.53", "10.0.0.2", question, port=53),
        datagram("10.0.0.53", "10.0.0.2", b"noise", port=53),
        answer("MX"),
        b"short",
    ):
        assert with_wrong_answer(frame, WRONG) == frame
    rule = Rule(Impairment(wrong_address=WRONG), sources=None, targets=None)
    rule.befall(Flight(frame=answer("MX"), due_s=0.0))
    rule.befall(Flight(frame=answer("A", RIGHT), due_s=0.0))
    assert (rule.met, rule.touched) == (2, 1)
