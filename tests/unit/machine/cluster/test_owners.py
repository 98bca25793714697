"""Which member a WireGuard peer is, by what the members declare of each other."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.cluster.owners import Owners, find_owners, member_addresses
from pytest_nixos.machine.cluster.plan import plan_networks
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.tunnels import Endpoint, Tunnel, TunnelPeer
from tests.unit.machine.cluster.test_plan import card, host

SCRIPTED = "networking.wireguard.interfaces"


def peer(key: str, *allowed: str, endpoint: str = "", found: tuple[str, ...] = ()) -> TunnelPeer:
    return TunnelPeer(
        public_key=key,
        allowed_ips=allowed,
        endpoint=Endpoint.parse(endpoint),
        resolved=found,
    )


def tunnel(address: str, *peers: TunnelPeer, name: str = "wg0", **more: Any) -> Tunnel:
    made = Tunnel(
        tree=SCRIPTED,
        trees=(SCRIPTED,),
        name=name,
        addresses=(address,) if address else (),
        key_file=f"/run/{name}.key",
        peers=peers,
    )
    return replace(made, **more)


def member(name: str, number: int, *tunnels: Tunnel) -> HostConfig:
    return replace(host(name, card("eth0", f"192.168.7.{number}/24")), tunnels=tunnels)


def owners(*hosts: HostConfig) -> Owners:
    named = {each.name: each for each in hosts}
    return find_owners(named, member_addresses(named, plan_networks(named)))


def links(found: Owners) -> dict[tuple[str, str], str]:
    return {
        (link.end.host, link.peer.public_key): f"{link.other.host}.{link.other.tunnel.name}"
        for link in found.links
    }


def pair(of_a: TunnelPeer, of_b: TunnelPeer, **of_b_more: Any) -> tuple[HostConfig, HostConfig]:
    a = member("a", 1, tunnel("10.1.0.1", of_a))
    return a, member("b", 2, tunnel("10.1.0.2", of_b, **of_b_more))


def test_two_members_by_the_addresses_of_their_tunnels() -> None:
    found = owners(*pair(peer("B", "10.1.0.2/32"), peer("A", "10.1.0.1/32")))
    assert links(found) == {("a", "B"): "b.wg0", ("b", "A"): "a.wg0"}
    assert found.strangers == ()


def test_a_hub_is_whom_its_spokes_name_and_no_spoke() -> None:
    # Each spoke reaches the whole network through the hub, so that each fits what the other says.
    hub = member("hub", 1, tunnel("10.1.0.1", peer("A", "10.1.0.2/32"), peer("B", "10.1.0.3/32")))
    spokes = [
        member(name, number, tunnel(f"10.1.0.{number}", peer("HUB", "10.1.0.0/24")))
        for name, number in (("a", 2), ("b", 3))
    ]
    found = links(owners(hub, *spokes))
    assert found == {
        ("hub", "A"): "a.wg0",
        ("hub", "B"): "b.wg0",
        ("a", "HUB"): "hub.wg0",
        ("b", "HUB"): "hub.wg0",
    }


def test_spokes_without_their_hub_are_not_taken_for_it() -> None:
    spokes = [
        member(name, number, tunnel(f"10.1.0.{number}", peer("HUB", "0.0.0.0/0")))
        for name, number in (("a", 2), ("b", 3))
    ]
    found = owners(*spokes)
    assert found.links == ()
    assert [s.told for s in found.strangers] == [
        "peer HUB… of wg0 of a is no member of this cluster",
        "peer HUB… of wg0 of b is no member of this cluster",
    ]


@pytest.mark.parametrize(
    "endpoint", ["192.168.7.3:51820", "c:51820", "vpn.example.org:51820", "[::ffff:1]:1"]
)
def test_endpoint_decides_between_members(endpoint: str) -> None:
    back = peer("A", "10.1.0.1/32")
    a = member(
        "a",
        1,
        tunnel(
            "10.1.0.1",
            peer(
                "X",
                "10.1.0.0/24",
                endpoint=endpoint,
                found=("192.168.7.3",) if "vpn" in endpoint else (),
            ),
        ),
    )
    hosts = [a, member("b", 2, tunnel("10.1.0.2", back)), member("c", 3, tunnel("10.1.0.3", back))]
    if "ffff" in endpoint:
        with pytest.raises(MachineError, match="peer X… of wg0 may be wg0 of b or wg0 of c") as err:
            owners(*hosts)
        assert "allowedIPs" in err.value.remedy
        return
    assert links(owners(*hosts))["a", "X"] == "c.wg0"


def test_port_of_the_endpoint_decides_between_interfaces_of_one_member() -> None:
    hub = member(
        "hub",
        1,
        tunnel("10.1.0.1", peer("A", "10.1.0.9/32"), port=1),
        tunnel("10.1.0.2", peer("A", "10.1.0.9/32"), name="wg1", port=2),
    )
    a = member("a", 2, tunnel("10.1.0.9", peer("X", "10.1.0.0/24", endpoint="192.168.7.1:2")))
    assert links(owners(hub, a))["a", "X"] == "hub.wg1"


def test_interfaces_with_one_key_file_have_one_key() -> None:
    both = [
        tunnel(f"10.{net}.0.1", peer("A", f"10.{net}.0.9/32"), name=f"wg{net}", key_file="/k")
        for net in (1, 2)
    ]
    a = member(
        "a",
        2,
        tunnel("10.1.0.9", peer("HUB", "10.1.0.1/32"), name="one", key_file="/k"),
        tunnel("10.2.0.9", peer("HUB", "10.2.0.1/32"), name="two", key_file="/k"),
    )
    found = owners(member("hub", 1, *both), a)
    assert {(x.end.tunnel.name, x.other.tunnel.name) for x in found.links if x.end.host == "a"} == {
        ("one", "wg1"),
        ("two", "wg2"),
    }


def test_own_key_in_the_config_is_known() -> None:
    answer = peer("A", "10.1.0.1/32")
    found = owners(*pair(peer("B", "10.1.0.2/32"), answer, inline_public="B", has_inline_key=True))
    assert links(found)["a", "B"] == "b.wg0"


def test_wrong_key_of_a_member_stays_wrong_and_is_told() -> None:
    found = owners(
        *pair(
            peer("B", "10.1.0.2/32"),
            peer("A", "10.1.0.1/32"),
            inline_public="ANOTHERKEY",
            has_inline_key=True,
        )
    )
    assert found.links == ()
    assert found.strangers[0].told == (
        "peer B… of wg0 of a is no member of this cluster: wg0 of b is at its address, and that one's"
        " own key is ANOTHERK…"
    )


def test_a_peer_that_is_forgotten_on_the_other_side_is_told() -> None:
    found = owners(*pair(peer("B", "10.1.0.2/32"), peer("C", "10.1.0.7/32")))
    assert found.links == ()
    assert "wg0 of b is at its address, and has no peer that is wg0 of a" in found.strangers[0].told


def test_who_has_no_peer_for_the_way_back_is_not_taken_for_one() -> None:
    a = member("a", 1, tunnel("10.1.0.1", peer("X", "10.1.0.0/24")))
    deaf = member("b", 2, tunnel("10.1.0.2", peer("ELSE", "10.1.0.77/32")))
    other = member("c", 3, tunnel("10.1.0.3", peer("A", "10.1.0.1/32")))
    assert links(owners(a, deaf, other)) == {("a", "X"): "c.wg0", ("c", "A"): "a.wg0"}


def test_key_that_the_run_cannot_give_is_told() -> None:
    answer = peer("A", "10.1.0.1/32")
    found = owners(*pair(peer("B", "10.1.0.2/32"), answer, config_file="/secret/wg0.conf"))
    assert found.links == ()
    assert "takes its key from /secret/wg0.conf" in found.strangers[0].told


def test_two_keys_for_one_interface_are_refused() -> None:
    hub = member("hub", 1, tunnel("10.1.0.1", peer("A", "10.1.0.2/32"), peer("B", "10.1.0.3/32")))
    a = member("a", 2, tunnel("10.1.0.2", peer("ONE", "10.1.0.1/32")))
    b = member("b", 3, tunnel("10.1.0.3", peer("TWO", "10.1.0.1/32")))
    with pytest.raises(
        MachineError, match="hub: one interface has one key, and wg0 is ONE…"
    ) as err:
        owners(hub, a, b)
    assert "wg show wg0 public-key" in err.value.remedy


def test_a_phone_beside_the_members_is_a_stranger() -> None:
    a, b = pair(peer("B", "10.1.0.2/32"), peer("A", "10.1.0.1/32"))
    wg0 = a.tunnels[0]
    with_phone = replace(wg0, peers=(*wg0.peers, peer("PHONE", "10.1.0.200/32")))
    found = owners(replace(a, tunnels=(with_phone,)), b)
    assert [s.peer.public_key for s in found.strangers] == ["PHONE"]
    assert len(found.links) == 2
