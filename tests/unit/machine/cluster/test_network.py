"""A network of a cluster: its own voice, and the stranger beside it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from pytest_nixos.errors import FaultError, MachineError, TransportError
from pytest_nixos.machine.base import NetworkCard
from pytest_nixos.machine.cluster.capture import Capture
from pytest_nixos.machine.cluster.faults import NetworkFaults
from pytest_nixos.machine.cluster.impairment import Impairment, Rule
from pytest_nixos.machine.cluster.network import ClusterNetwork, own_prefix, own_voice
from pytest_nixos.machine.cluster.outside import outside, outside_argv
from pytest_nixos.machine.cluster.plan import Place, PlannedNetwork
from pytest_nixos.machine.cluster.switch import Switch
from pytest_nixos.machine.network.advertise import link_local
from pytest_nixos.machine.network.frames import (
    UdpDatagram,
    icmpv6_message,
    parse_frame,
    udp_datagram,
)
from pytest_nixos.machine.vm.argv import cards_argv
from pytest_nixos.machine.vm.run_script import QemuVersion
from pytest_nixos.nix.config.cards import Card, Vlan
from tests.unit.machine.network.test_dhcp import DISCOVER, message

HARDWARE = message(DISCOVER)[28:34]


def asked(port: int = 67) -> bytes:
    datagram = UdpDatagram(
        source=IPv4Address("0.0.0.0"),
        destination=IPv4Address("255.255.255.255"),
        source_port=68,
        destination_port=port,
        payload=message(DISCOVER),
    )
    return udp_datagram((b"\xff" * 6, HARDWARE), datagram)


def planned() -> PlannedNetwork:
    card = Card(name="lan0", hardware=HARDWARE.hex(":"))
    other = Card(name="lan0", hardware="52:54:00:00:00:02")
    places = tuple(
        Place(
            host=host,
            number=0,
            card=own,
            address=IPv4Interface(f"10.233.0.{number}/24"),
            is_leased=True,
        )
        for number, (host, own) in enumerate((("a", card), ("b", other)), start=2)
    )
    return PlannedNetwork(name="x", outside=IPv4Interface("10.233.0.1/24"), places=places)


def test_each_member_is_leased_its_own_address() -> None:
    reply = own_voice(planned())
    given = parse_frame(reply("a.0", asked()) or b"")
    assert isinstance(given, UdpDatagram)
    assert (str(given.source), given.source_port, given.destination_port) == ("10.233.0.1", 67, 68)
    # yiaddr, RFC 2131.
    assert given.payload[16:20] == IPv4Address("10.233.0.2").packed


def test_nobody_else_is_answered() -> None:
    reply = own_voice(planned())
    assert reply("b.0", asked()) is None
    assert reply("stranger", asked()) is None
    assert reply("a.0", asked(port=53)) is None
    assert reply("a.0", b"short") is None


def solicitation(sender: bytes) -> bytes:
    everybody, receiver = b"\x33\x33\x00\x00\x00\x02", IPv6Address("ff02::2")
    body = bytes((133, 0, 0, 0)) + bytes(4)
    return icmpv6_message((everybody, sender), link_local(sender), receiver, body)


def test_who_has_no_address_is_told_the_prefix_of_the_network_and_no_router() -> None:
    network = planned()
    told = own_voice(network)("a.0", solicitation(HARDWARE)) or b""
    # RFC 4861, 4.2: router lifetime, and the prefix option behind the sender's address.
    body = told[14 + 40 :]
    assert body[0] == 134 and body[6:8] == b"\0\0"
    prefix = own_prefix(network)
    assert prefix.is_private and prefix.prefixlen == 64
    assert prefix.network_address.packed in body


def test_who_declares_an_address_hears_no_router() -> None:
    [first, second] = planned().places
    static = replace(planned(), places=(replace(first, is_leased=False), second))
    assert own_voice(static)("a.0", solicitation(HARDWARE)) is None


def test_a_dead_gateway_knows_its_own_addresses_and_strangers_are_told() -> None:
    cards = (
        Card(
            name="lan0",
            hardware=HARDWARE.hex(":"),
            vlans=(Vlan(name="v", id=5, addresses=("10.5.0.1/24",)),),
        ),
        Card(name="wan0", hardware="52:54:00:00:00:09", addresses=("198.51.100.1/24",)),
    )
    machines = {"a": SimpleNamespace(spec=SimpleNamespace(host=SimpleNamespace(cards=cards)))}
    machines["a"].invalidate = lambda: None
    with Switch(capture=Capture()) as switch:
        network = ClusterNetwork(planned(), switch, cast("Any", None), Capture())
        faults = NetworkFaults(cast("Any", machines), [network], reaches=lambda *_: True)
        with faults.dead_gateway("a") as fault:
            [rule] = fault.rules
            assert rule.applies("b.0", "a.0") and not rule.applies("a.0", "b.0")
            own = {str(address) for address in rule.impairment.own_addresses}
        assert {"10.233.0.2", "10.5.0.1", "198.51.100.1", str(link_local(HARDWARE))} <= own
        with pytest.raises(FaultError, match="b: no member"):
            faults.dead_gateway("b")
        with pytest.raises(FaultError, match="wrong_dns 'db': no IPv4 address"):
            faults.wrong_dns("db")


def test_the_prefix_is_the_one_that_the_others_declare() -> None:
    [first, second] = planned().places
    own = replace(
        second,
        card=msgspec.structs.replace(second.card, addresses=("2001:db8:1::5/64", "fe80::1/64")),
    )
    assert str(own_prefix(replace(planned(), places=(first, own)))) == "2001:db8:1::/64"


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2 here"
)
def test_strangers_meet_over_the_switch(tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    for path in (here, there):
        path.mkdir()
    capture = Capture()
    with (
        outside(here, [IPv4Interface("10.1.0.1/24")]) as one,
        outside(there, [IPv4Interface("10.1.0.2/24")]) as two,
        Switch(capture=capture) as switch,
    ):
        switch.add_interface("one", one.wire)
        switch.add_interface("two", two.wire)
        # A refusal is an answer of the other's stack: frames went there and back, with right sums.
        with pytest.raises(TransportError, match="refused"):
            one.connect(IPv4Address("10.1.0.2"), 80, timeout_s=5)
        lost = Rule(Impairment(loss=1), sources=["one"], targets=["two"])
        with (
            switch.under(lost),
            pytest.raises(TransportError, match=r"no answer in time|timed out|No route"),
        ):
            one.connect(IPv4Address("10.1.0.2"), 80, timeout_s=0.3)
    assert len(capture) >= 4


def test_a_stranger_without_root_has_a_user_namespace(tmp_path: Path) -> None:
    argv = outside_argv(tmp_path / "s", ["10.0.0.1/24"], is_root=False)
    assert argv[:4] == ("unshare", "--user", "--map-root-user", "--net")
    assert argv[-1] == "10.0.0.1/24"
    assert "--user" not in outside_argv(tmp_path / "s", [], is_root=True)


def test_cards_are_plugged_into_sockets(tmp_path: Path) -> None:
    cards = [NetworkCard(hardware="52:54:00:00:00:01"), NetworkCard(hardware="52:54:00:00:00:02")]
    argv = cards_argv(tmp_path, cards, QemuVersion(major=7, minor=2))
    assert argv[:4] == (
        "-netdev",
        f"stream,id=card0,server=off,addr.type=unix,addr.path={tmp_path}/card0.sock",
        "-device",
        "virtio-net-pci,id=nic0,netdev=card0,mac=52:54:00:00:00:01",
    )
    assert len(argv) == 8
    assert cards_argv(tmp_path, [], None) == ()


def test_an_old_qemu_is_told(tmp_path: Path) -> None:
    cards = [NetworkCard(hardware="52:54:00:00:00:01")]
    with pytest.raises(MachineError, match=r"QEMU 7\.1 cannot be plugged"):
        cards_argv(tmp_path, cards, QemuVersion(major=7, minor=1))
