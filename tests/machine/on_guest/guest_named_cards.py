"""Hosts that name their network cards have them under these names, with addresses and firewall
rules by interface, in VMs of two flakes on two networks. Run by test_vm_cluster.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_nixos import Cluster, TransportError

INSIDE, OUTSIDE = "192.168.7.0/24", "198.51.100.0/24"


@pytest.fixture(scope="module")
def cluster(nixos_cluster: Callable[..., Cluster]) -> Cluster:
    return nixos_cluster("router", "./other#client", backend="vm")


def test_cards_have_the_names_that_the_host_gives_them(cluster: Cluster) -> None:
    seen = cluster["router"].run("ip -o -4 address show scope global").stdout_text
    by_name = {line.split()[1]: line.split()[3] for line in seen.splitlines()}
    assert by_name == {"enp3s0": "192.168.7.1/24", "wan0": "198.51.100.1/24"}
    assert set(cluster.networks) == {INSIDE, OUTSIDE}


def test_a_card_that_is_matched_by_its_hardware_address_has_it(cluster: Cluster) -> None:
    link = cluster["client"].run("cat /sys/class/net/lan0/address").stdout_text.strip()
    assert link == "02:11:22:33:44:55"
    assert cluster.reaches("client", "router", limit_s=5)


def test_firewall_rules_by_interface_hold(cluster: Cluster) -> None:
    cluster.connect("router", 8080, network=INSIDE).close()
    with pytest.raises(TransportError):
        cluster.connect("router", 8080, network=OUTSIDE, timeout_s=3)
