"""Who is on which network, and what is refused before anything boots."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.cluster.plan import PlannedNetwork, addresses_by_host, plan_networks
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.cards import Card, Vlan
from pytest_nixos.nix.config.host_facts import HostConfig, parse_host_config
from tests.unit.host_documents import document

NUMBERS = iter(range(1, 200))


def card(name: str, *addresses: str, vlans: tuple[Vlan, ...] = (), hardware: str = "") -> Card:
    return Card(
        name=name,
        hardware=hardware or f"52:54:00:00:00:{next(NUMBERS):02x}",
        addresses=addresses,
        vlans=vlans,
    )


def host(name: str, *cards: Card, orphans: tuple[str, ...] = ()) -> HostConfig:
    made = parse_host_config(HostRef(FlakeRef("/f"), name), document(), option_paths=())
    return replace(made, cards=cards or (card(""),), orphan_vlans=orphans)


def planned(hosts: Sequence[HostConfig]) -> tuple[PlannedNetwork, ...]:
    return plan_networks({each.name: each for each in hosts})


def vlan(number: int, address: str) -> Vlan:
    return Vlan(name=f"vlan{number}", id=number, addresses=(address,))


def test_hosts_without_addresses_get_some_that_differ() -> None:
    [network] = planned([host("a"), host("b"), host("c")])
    assert [str(place.address) for place in network.places] == [
        *("10.233.0.2/24", "10.233.0.3/24", "10.233.0.4/24")
    ]
    assert str(network.outside) == "10.233.0.1/24"
    assert all(place.is_leased for place in network.places)


def test_declared_addresses_stay_and_others_get_free_ones() -> None:
    hosts = [host("a", card("lan", "10.20.0.1/24")), host("b", card("lan", "10.20.0.3/24"))]
    [network] = planned([*hosts, host("c")])
    assert network.name == "10.20.0.0/24"
    assert {p.host: str(p.address.ip) for p in network.places} == {
        "a": "10.20.0.1",
        "b": "10.20.0.3",
        "c": "10.20.0.4",
    }
    assert str(network.outside) == "10.20.0.2/24"
    assert [p.host for p in network.places if p.is_leased] == ["c"]


def test_each_subnet_is_a_network() -> None:
    gateway = host("gateway", card("lan", "10.0.0.1/24"), card("wan", "192.0.2.1/24"))
    found = planned(
        [gateway, host("a", card("enp1s0", "10.0.0.2/24")), host("b", card("x", "192.0.2.2/24"))]
    )
    assert {n.name: [p.host for p in n.places] for n in found} == {
        "10.0.0.0/24": ["gateway", "a"],
        "192.0.2.0/24": ["gateway", "b"],
    }
    assert str(addresses_by_host(found)["gateway"]) == "10.0.0.1"


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (card("lan", "10.0.0.1/24"), card("eno1", "10.0.0.1/24"), "b: declares 10.0.0.1 for eno1"),
        (card("lan", "10.0.0.1/24"), card("lan", "10.0.0.2/16"), "10.0.0.0/16, and a addresses"),
        (card("lan", "fd00::1/64"), card("lan", "fd00::2/56"), "and a addresses the same network"),
        (
            card("lan", vlans=(vlan(5, "10.5.0.1/24"),)),
            card("lan", vlans=(vlan(5, "10.5.0.1/24"),)),
            "b: declares 10.5.0.1 for vlan5",
        ),
        (
            card("lan", hardware="52:54:00:aa:aa:aa"),
            card("lan", hardware="52:54:00:aa:aa:aa"),
            "and so has lan of a",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(first: Card, second: Card, words: str) -> None:
    with pytest.raises(MachineError, match=words):
        planned([host("a", first), host("b", second)])


def test_a_vlan_without_a_card_is_refused() -> None:
    with pytest.raises(MachineError, match="a: VLAN vlan7 is on no network card"):
        planned([host("a", orphans=("vlan7",))])


def test_different_vlans_and_link_local_addresses_do_not_meet() -> None:
    one = card("lan", "fe80::1/64", vlans=(vlan(5, "10.5.0.1/24"),))
    two = card("lan", "fe80::1/64", vlans=(vlan(6, "10.5.0.1/24"),))
    assert len(planned([host("a", one), host("b", two)])) == 1


def test_a_network_that_is_full_is_told() -> None:
    full = [host("a", card("x", "10.0.0.1/30")), host("b", card("x", "10.0.0.2/30"))]
    with pytest.raises(MachineError, match=r"10\.0\.0\.0/30: no address is left"):
        planned(full)
