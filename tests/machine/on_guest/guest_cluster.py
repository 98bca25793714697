"""Faults of one member of a cluster, seen by a stranger on the common network. Run by
test_on_guest.py.
"""

from __future__ import annotations

from collections.abc import Callable

from pytest_nixos import Faults, TransportError
from pytest_nixos.machine.cluster.cluster import Cluster

NATS_PORT = 4222


def test_a_pulled_cable_cuts_a_member_off(nixos_cluster: Callable[..., Cluster]) -> None:
    cluster = nixos_cluster("nats-1", "nats-2")
    assert reachable(cluster, "nats-1")
    with Faults(cluster["nats-1"]).network_down():
        assert not reachable(cluster, "nats-1")
        assert reachable(cluster, "nats-2")
    assert reachable(cluster, "nats-1")


def reachable(cluster: Cluster, name: str) -> bool:
    try:
        cluster.connect(name, NATS_PORT, timeout_s=3).close()
    except TransportError:
        return False
    return True
