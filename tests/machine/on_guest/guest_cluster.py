"""Faults of one member of a cluster, seen by a stranger on the common network. Run by
test_on_guest.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from pytest_nixos import Deadline, Faults, TransportError, poll
from pytest_nixos.machine.cluster.cluster import Cluster
from pytest_nixos.machine.door.visitor import open_doors

NATS_PORT = 4222


def test_a_pulled_cable_cuts_a_member_off(nixos_cluster: Callable[..., Cluster]) -> None:
    cluster = nixos_cluster("nats-1", "nats-2")
    serve(cluster)
    with Faults(cluster["nats-1"]).network_down():
        assert not reachable(cluster, "nats-1")
        assert reachable(cluster, "nats-2")
    assert reachable(cluster, "nats-1")


def test_an_own_address_is_made_of_the_planned_hardware(
    nixos_cluster: Callable[..., Cluster],
) -> None:
    for machine in nixos_cluster("nats-1", "nats-2").values():
        (card,) = machine.spec.host.cards
        parts = [f"{int(part, 16):02x}" for part in card.hardware.split(":")]
        end = ":".join(("ff", "fe", *parts[3:])).replace(":", "")
        shown = machine.run("cat /sys/class/net/eth0/address /proc/net/if_inet6").stdout_text
        assert card.hardware in shown
        own = next(line for line in shown.splitlines() if line.startswith("fe80"))
        assert own.split()[0].endswith(end), shown


def test_each_member_can_be_entered(nixos_cluster: Callable[..., Cluster]) -> None:
    nixos_cluster("nats-1", "nats-2")
    doors = {door.card.host: door for door in open_doors() if door.card.owner == os.getpid()}
    assert {"nats-1", "nats-2"} <= doors.keys()
    for name, door in doors.items():
        assert door.run("hostname", deadline=Deadline.after(60)).stdout_text.strip() == name


def test_trouble_between_members(nixos_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    cluster = nixos_cluster("nats-1", "nats-2")
    serve(cluster)
    with cluster.faults.partition(["nats-1"]) as parted:
        assert not connects(cluster, "nats-1", "nats-2")
        assert reachable(cluster, "nats-1") and reachable(cluster, "nats-2")
    assert parted.touched > 0
    assert connects(cluster, "nats-1", "nats-2")
    with cluster.faults.loss(1, source="nats-2"):
        assert not cluster.reaches("nats-1", "nats-2")
    with cluster.faults.delay(0.3, source="nats-1"), cluster.faults.delay(0.2, source="nats-2"):
        trip_s = cluster.round_trip_s("nats-1", "nats-2")
        assert trip_s is not None and trip_s >= 0.5
    with cluster.faults.mtu_black_hole(600):
        assert cluster.round_trip_s("nats-1", "nats-2", size=1400, limit_s=0.5) is None
        assert cluster.reaches("nats-1", "nats-2")
    assert cluster.round_trip_s("nats-1", "nats-2", size=1400) is not None
    # Frames as they are on a wire: whole checksums, no longer than a packet may be.
    content = cluster.capture(tmp_path / "network.pcap").read_bytes()
    assert 0 < max(sizes(content)) <= 1518


def serve(cluster: Cluster) -> None:
    """Wait until all members serve."""
    for name in cluster:
        assert poll(
            lambda name=name: reachable(cluster, name) or None,  # type: ignore[misc]
            deadline=Deadline.after(30),
            interval_s=0.2,
        )


def sizes(pcap: bytes) -> Iterator[int]:
    """Return the sizes of a pcap file's frames."""
    at = 24
    while at < len(pcap):
        (size,) = struct.unpack_from("=I", pcap, at + 8)
        yield size
        at += 16 + size


def connects(cluster: Cluster, source: str, target: str) -> bool:
    """Whether a guest itself has a TCP connection to another."""
    command = f"timeout 3 bash -c '</dev/tcp/{target}/{NATS_PORT}'"
    return cluster[source].run(command, timeout_s=30).succeeded


def reachable(cluster: Cluster, name: str) -> bool:
    try:
        cluster.connect(name, NATS_PORT, timeout_s=3).close()
    except TransportError:
        return False
    return True


def test_a_member_without_an_address_takes_one_of_each_family(
    nixos_cluster: Callable[..., Cluster],
) -> None:
    cluster = nixos_cluster("container-host")
    machine = cluster["container-host"]

    def shown(family: str) -> str:
        command = f"ip -{family} -o address show dev eth0 scope global"
        return machine.run(command).stdout_text

    assert str(cluster.address("container-host")) in shown("4")
    found = poll(lambda: shown("6") or None, deadline=Deadline.after(30), interval_s=0.5)
    assert found is not None and " fd" in found


def test_hosts_of_one_name_and_card_are_told_apart(nixos_cluster: Callable[..., Cluster]) -> None:
    cluster = nixos_cluster("nats-1", "./other#nats-1")
    assert set(cluster) == {"nats-1", "./other#nats-1"}
    hardware = {m.run("cat /sys/class/net/eth0/address").stdout_text for m in cluster.values()}
    assert len(hardware) == 2
    assert cluster.reaches(*cluster, limit_s=10)
