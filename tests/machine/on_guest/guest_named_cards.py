"""Hosts that name their network cards have them under these names, with addresses and firewall
rules by interface, in VMs of two flakes on two networks. Run by test_vm_cluster.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nixos import Cluster, TransportError

INSIDE, OUTSIDE = "192.168.7.0/24", "198.51.100.0/24"


@pytest.fixture(scope="module")
def cluster(nixos_cluster: Callable[..., Cluster]) -> Cluster:
    return nixos_cluster("router", "./other#client", backend="vm")


def test_cards_have_the_names_that_the_host_gives_them(cluster: Cluster) -> None:
    seen = cluster["router"].run("ip -o -4 address show scope global").stdout_text
    by_name = {line.split()[1]: line.split()[3] for line in seen.splitlines()}
    assert by_name["enp3s0"] == "192.168.7.1/24"
    assert by_name["wan0"] == "198.51.100.1/24"
    assert set(cluster.networks) == {INSIDE, OUTSIDE}


def test_a_card_that_is_matched_by_its_hardware_address_has_it(cluster: Cluster) -> None:
    link = cluster["client"].run("cat /sys/class/net/lan0/address").stdout_text.strip()
    assert link == "02:11:22:33:44:55"
    assert cluster.reaches("client", "router", limit_s=5)


def test_firewall_rules_by_interface_hold(cluster: Cluster) -> None:
    cluster.connect("router", 8080, network=INSIDE).close()
    with pytest.raises(TransportError):
        cluster.connect("router", 8080, network=OUTSIDE, timeout_s=3)


def test_a_vlan_goes_over_the_network_with_its_tag(cluster: Cluster, tmp_path: Path) -> None:
    client, router = cluster["client"], cluster["router"]
    # The router makes its VLAN by a script, the client by networkd.
    for machine in (client, router):
        assert "vlan protocol 802.1Q id 5" in machine.run("ip -d link show office").stdout_text
    assert client.run("ping -c 1 -W 5 10.5.0.1", timeout_s=30).succeeded
    content = cluster.capture(tmp_path / "segment.pcap", network=INSIDE).read_bytes()
    # 802.1Q with number 5, then an IPv4 packet from one to the other.
    tagged = bytes.fromhex("81000005" + "0800")
    assert tagged in content and bytes((10, 5, 0, 2, 10, 5, 0, 1)) in content


def test_a_dead_gateway_answers_for_itself_alone(cluster: Cluster) -> None:
    client = cluster["client"]
    assert client.run("ip route add 198.51.100.0/24 via 192.168.7.1").succeeded
    # The router's own address on the other side needs no forwarding; a stranger's there does.
    cluster["router"].run("sysctl -q -w net.ipv4.ip_forward=1")
    with cluster.faults.dead_gateway("router") as fault:
        assert client.run("ping -c 1 -W 5 198.51.100.1", timeout_s=30).succeeded
        assert not client.run("ping -c 1 -W 2 198.51.100.2", timeout_s=30).succeeded
        assert fault.touched > 0
