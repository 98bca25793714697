"""Members of a cluster have WireGuard between them under test keys, whichever of three ways each
declares it, and what is inside goes over no network in clear. Run by test_tunnels.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pytest_nixos import Cluster

LAN = "192.168.7.0/24"
INSIDE = {"hub": "10.100.0.1", "units": "10.100.0.2", "quick": "10.100.0.3"}


@pytest.fixture(scope="module")
def cluster(nixos_cluster: Callable[..., Cluster]) -> Cluster:
    return nixos_cluster(*INSIDE, backend="vm")


@pytest.mark.parametrize("spoke", ["units", "quick"])
def test_goes_through_the_tunnel_only(cluster: Cluster, spoke: str) -> None:
    tunnel = cluster.tunnel("hub", spoke)
    assert tunnel.handshake(limit_s=60), cluster[spoke].run("wg show; ip route").stdout_text
    since_s = time.time()
    ping = cluster[spoke].run(f"ping -c 3 -W 5 {INSIDE['hub']}", timeout_s=60)
    assert ping.succeeded, ping.stdout_text
    seen = tunnel.traffic(since_s=since_s)
    assert seen.messages >= 6  # asked and answered
    assert seen.in_clear == ()


def test_what_goes_beside_the_tunnel_is_seen(cluster: Cluster) -> None:
    since_s = time.time()
    route = f"ip route replace {INSIDE['hub']} via 192.168.7.1 dev eth0"
    assert cluster["units"].run(route).succeeded
    cluster["units"].run(f"ping -c 1 -W 1 {INSIDE['hub']}", timeout_s=30)
    cluster["units"].run(f"ip route del {INSIDE['hub']} via 192.168.7.1 dev eth0")
    seen = cluster.tunnel("units", "hub").traffic(since_s=since_s)
    assert any(f"> {INSIDE['hub']} on {LAN}" in packet for packet in seen.in_clear)
    assert cluster.tunnel("quick", "hub").traffic(since_s=since_s).in_clear


def test_keys_are_those_of_the_run(cluster: Cluster) -> None:
    public = cluster["units"].run("wg show wg0 public-key").stdout_text.strip()
    assert public not in ("", "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=")
    # networkd reads its key as its own user, and nobody else does.
    hub = cluster["hub"].run("stat -c '%U %a' /etc/wg.key /etc/wg-units.psk").stdout_text
    assert hub.split("\n")[:2] == ["systemd-network 400"] * 2
    quick = cluster["quick"].run("stat -c '%U %a' /var/lib/wg.key").stdout_text
    assert quick.strip() == "root 400"


def test_endpoint_that_only_the_world_knows_is_the_members(cluster: Cluster) -> None:
    for spoke in ("units", "quick"):
        known = cluster[spoke].run("getent ahostsv4 vpn.example.org").stdout_text
        assert known.startswith("192.168.7.1 ")
    assert {tunnel.name for tunnel in cluster.tunnels} == {
        "wg0 of hub - wg0 of units",
        "wg0 of hub - wg0 of quick",
    }
