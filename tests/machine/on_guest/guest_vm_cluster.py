"""A cluster of VMs: networks without root's help, trouble on their way, and the way back. Run by
test_vm_cluster.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nixos import Cluster, Faults, NixosError, poll
from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline

A, B, C = "nats-1", "nats-2", "nats-3"
CLIENTS, ROUTES = 4222, 6222
# Opens a TCP connection to the other's port and says how long it took, in ms.
CONNECT = "s=$(date +%s%N); timeout {limit} bash -c '</dev/tcp/{host}/{port}' && echo $((($(date +%s%N) - s) / 1000000))"


@pytest.fixture(scope="module")
def cluster(nixos_cluster: Callable[..., Cluster]) -> Cluster:
    return nixos_cluster(A, B, C, backend="vm")


def connects(cluster: Cluster, source: str, target: str, *, limit_s: int = 5) -> int | None:
    """Return in how many milliseconds a guest itself has a TCP connection to another."""
    command = CONNECT.format(limit=limit_s, host=target, port=CLIENTS)
    answer = cluster[source].run(command, timeout_s=60)
    return int(answer.stdout_text) if answer.succeeded else None


def test_members_have_their_declared_addresses(cluster: Cluster) -> None:
    assert cluster.networks == ("10.20.0.0/24",)
    for name, address in ((A, "10.20.0.11"), (B, "10.20.0.12"), (C, "10.20.0.13")):
        assert str(cluster.address(name)) == address
        assert address in cluster[name].run("ip -o -4 address show dev eth0").stdout_text
    assert connects(cluster, A, B) is not None


def test_a_stranger_stands_beside_them(cluster: Cluster) -> None:
    with cluster.connect(B, CLIENTS) as client:
        assert client.recv(4) == b"INFO"
    with pytest.raises(TransportError):
        cluster.connect(B, 1, timeout_s=1)


def test_partition_holds_and_heals(cluster: Cluster) -> None:
    with cluster.faults.partition([A], [B, C]):
        assert connects(cluster, A, B) is None
        assert connects(cluster, B, C) is not None
        with cluster.connect(A, CLIENTS) as client:
            assert client.recv(4) == b"INFO"
    assert connects(cluster, A, B) is not None


def test_loss_of_one_direction(cluster: Cluster) -> None:
    with cluster.faults.loss(1, source=A, target=B) as fault:
        assert not cluster.reaches(A, B)
        assert cluster.reaches(A, C)
        assert connects(cluster, B, A, limit_s=3) is None
        assert fault.touched == fault.met > 0
    assert cluster.reaches(A, B, limit_s=5)


def test_delay_and_jitter_are_measured(cluster: Cluster) -> None:
    with cluster.faults.delay(0.4, source=A), cluster.faults.delay(0.3, jitter_s=0.1, source=B):
        trip_s = cluster.round_trip_s(A, B)
        assert trip_s is not None and trip_s >= 0.6
        taken_ms = connects(cluster, A, B)
        assert taken_ms is not None and taken_ms >= 600
    trip_s = cluster.round_trip_s(A, B)
    assert trip_s is not None and trip_s < 0.3


def test_connections_survive_loss_duplicates_disorder_and_turned_bits(cluster: Cluster) -> None:
    faults = cluster.faults
    with (
        faults.loss(0.1, source=A, target=B) as lost,
        faults.duplication(0.3, source=B, target=A) as doubled,
        faults.reordering(0.3, within_s=0.05) as disordered,
        faults.corruption(0.05, source=A, target=B) as turned,
    ):
        for _ in range(10):
            assert connects(cluster, A, B, limit_s=30) is not None
    for fault in (lost, doubled, disordered, turned):
        assert fault.met > 0
    assert doubled.touched and disordered.touched


def test_a_narrow_link_takes_its_time(cluster: Cluster) -> None:
    with cluster.faults.bandwidth(24, source=A):
        # 1400 bytes of a question need nearly half a second at 24 kbit/s.
        trip_s = cluster.round_trip_s(A, B, size=1400)
        assert trip_s is not None and trip_s >= 0.4


def test_a_black_hole_swallows_long_packets_alone(cluster: Cluster) -> None:
    with cluster.faults.mtu_black_hole(600):
        assert cluster.round_trip_s(A, B, size=1400, limit_s=1) is None
        assert cluster.round_trip_s(A, B) is not None
    assert cluster.round_trip_s(A, B, size=1400) is not None


def test_a_flapping_link_and_a_pulled_cable(cluster: Cluster) -> None:
    with cluster.faults.flapping(B, up_s=0.4, down_s=0.4):
        seen = {cluster.reaches(A, B, limit_s=0.2) for _ in range(20)}
    assert seen == {True, False}
    assert cluster.reaches(A, B, limit_s=10)
    cluster.cut(C)
    assert not cluster.reaches(A, C)
    cluster.mend(C)
    assert cluster.reaches(A, C, limit_s=10)


def test_clocks_apart(cluster: Cluster) -> None:
    with Faults(cluster[B]).clock_jump(3600):
        here, there = (int(cluster[name].run("date +%s").stdout_text) for name in (A, B))
        assert 3500 < there - here < 3700


def test_faults_name_members_only(cluster: Cluster) -> None:
    with pytest.raises(NixosError, match="nats-9: no member"):
        cluster.faults.loss(1, source="nats-9")
    with pytest.raises(NixosError, match="on two sides"), cluster.faults.partition([A], [A, B]):
        pass


def test_the_frames_are_kept_for_tshark(cluster: Cluster, tmp_path: Path) -> None:
    connects(cluster, A, B)
    file = cluster.capture(tmp_path / "segment.pcap")
    content = file.read_bytes()
    assert content[:4] == bytes.fromhex("4d3cb2a1") and len(content) > 1000
    # Addresses of both, as bytes of some IPv4 header.
    assert bytes((10, 20, 0, 11, 10, 20, 0, 12)) in content
    if shutil.which("tcpdump"):
        argv = ["tcpdump", "-n", "-r", str(file)]
        told = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert "10.20.0.11" in told.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_a_vm_and_a_container_share_a_network(nixos_cluster: Callable[..., Cluster]) -> None:
    mixed = nixos_cluster(A, B, backend={A: "vm", B: "container"})
    assert mixed.reaches(A, B, limit_s=5) and mixed.reaches(B, A, limit_s=5)
    for source, target in ((A, B), (B, A)):
        assert connects(mixed, source, target) is not None
    with mixed.faults.partition([A]):
        assert connects(mixed, B, A, limit_s=2) is None
    mixed.cut(B)
    assert not mixed.reaches(A, B)
    mixed.mend(B)
    assert mixed.reaches(A, B, limit_s=10)


def test_members_are_all_connected_in_the_end(cluster: Cluster) -> None:
    def routes() -> bool | None:
        command = f"ss -Htn state established '( sport = :{ROUTES} or dport = :{ROUTES} )' | wc -l"
        return all(int(cluster[n].run(command).stdout_text) >= 2 for n in cluster) or None

    assert poll(routes, deadline=Deadline.after(60), interval_s=1.0)
