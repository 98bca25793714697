"""What a host gives systemd-networkd and no link has."""

from __future__ import annotations

from typing import Any

import pytest

from checks.network.given import gateways_apart, misnamed, read_links, read_netdevs, unmade

# As networkctl of systemd 257 tells, in part.
LINKS = """{"Interfaces": [
{"Index": 1, "Name": "lo", "Type": "loopback", "AdministrativeState": "unmanaged", "CarrierState": "carrier"},
{"Index": 2, "Name": "br0", "Kind": "bridge", "AdministrativeState": "unmanaged", "CarrierState": "off"},
{"Index": 3, "Name": "eth0", "Kind": "veth", "AdministrativeState": "configuring", "CarrierState": "carrier",
 "NetworkFile": "/etc/systemd/network/10-lan.network"}]}"""


def of(name: str, **settings: Any) -> dict[str, Any]:
    return {"10-lan": {"matchConfig": {"Name": name}, **settings}}


@pytest.fixture
def links() -> Any:
    found = read_links(LINKS)
    assert found is not None
    return found


def test_no_answer_is_none() -> None:
    assert read_links("Unknown command verb list") is None


@pytest.mark.parametrize(
    "settings",
    [
        {"address": ["192.0.2.5/24"], "gateway": ["192.0.3.1"]},
        {"networkConfig": {"Address": "192.0.2.5/24", "Gateway": "192.0.3.1"}},
        {"addresses": [{"Address": "192.0.2.5/24"}], "routes": [{"Gateway": "192.0.3.1"}]},
        {
            "addresses": [{"addressConfig": {"Address": "192.0.2.5/24"}}],
            "routes": [{"routeConfig": {"Gateway": "192.0.3.1"}}],
        },
    ],
)
def test_a_gateway_outside_of_its_links_networks_is_told(settings: Any, links: Any) -> None:
    (wrong,) = gateways_apart(of("eth0", **settings), links)
    assert wrong.what == (
        "eth0 waits for its gateway 192.0.3.1, which is in none of its networks (192.0.2.5/24)"
    )
    assert 'networks."10-lan"' in wrong.mend


@pytest.mark.parametrize(
    "settings",
    [
        {"address": ["192.0.2.5/24"], "gateway": ["192.0.2.1"]},
        {"address": ["192.0.2.5/24", "2001:db8::5/64"], "gateway": ["fe80::1"]},
        {"address": ["192.0.2.5/24"], "gateway": ["192.0.3.1"], "networkConfig": {"DHCP": "yes"}},
        {"address": ["192.0.2.5/24"], "routes": [{"Gateway": "192.0.3.1", "GatewayOnLink": True}]},
        {"address": ["192.0.2.5/24"], "gateway": ["192.0.3.1"], "enable": False},
        {"address": ["192.0.2.5/24"], "gateway": ["_dhcp4"]},
    ],
)
def test_a_gateway_that_a_link_can_reach_is_not_told(settings: Any, links: Any) -> None:
    assert not list(gateways_apart(of("eth0", **settings), links))


def test_a_link_that_is_configured_waits_for_nothing(links: Any) -> None:
    apart = {"address": ["192.0.2.5/24"], "gateway": ["192.0.3.1"]}
    assert not list(gateways_apart(of("br0", **apart), links))


def test_a_network_of_a_misspelt_link_is_told_with_the_one_that_is_meant(links: Any) -> None:
    (wrong,) = misnamed(of("br-0"), links)
    assert wrong.mend == 'systemd.network.networks."10-lan".matchConfig.Name = "br0";'
    # Cards of the real host, patterns, and what is there.
    for name in ("enp3s0", "br*", "!br-0", "br0", "eth0", "br-0 eth0", "eth1"):
        assert not list(misnamed(of(name), links)), name


def test_a_vlan_that_no_network_carries_is_told() -> None:
    at = "/etc/systemd/network/20-vlan.netdev"
    vlan = read_netdevs(f"{at}:Kind=vlan\n{at}:Name=vlan20\n")
    assert vlan == {"20-vlan": {"Kind": "vlan", "Name": "vlan20"}}
    (wrong,) = unmade(vlan, of("eth0", vlan=["vlan30"]), ["eth0"])
    assert wrong.what == "20-vlan makes no vlan20: no network has it among its VLANs"
    assert not list(unmade(vlan, of("eth0", vlan=["vlan20"]), ["eth0"]))
    assert not list(unmade(vlan, of("eth0", networkConfig={"VLAN": "a vlan20"}), []))
    assert not list(unmade(vlan, of("eth0", extraConfig="[Network]\nVLAN=vlan20"), []))
    assert not list(unmade(vlan, {}, ["vlan20"]))
    assert not list(unmade({"x": {"Name": "br0", "Kind": "bridge"}}, {}, []))
