"""Containers as Proxmox makes them, on a network with another host. Run by test_pct.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_nixos import Cluster, Machine

CT, WEB, STUBBORN = "ct", "web", "stubborn"
STATIC = (
    "pct create 101 local:vztmpl/nixos.tar.xz --unprivileged 1 --storage local-lvm --hostname ct101.example.org"
    " --net0 name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:05,ip=10.0.0.5/24,gw=10.0.0.1"
    " --nameserver 10.0.0.53 --memory 300 --cores 1"
)
LEASED = "--net0 name=eth0,bridge=vmbr0,ip=dhcp"


def said(machine: Machine, command: str) -> str:
    return machine.run(command).stdout_text.strip()


@pytest.fixture(scope="module")
def cluster(nixos_cluster: Callable[..., Cluster]) -> Cluster:
    return nixos_cluster(CT, WEB, backend="container", pct={CT: STATIC})


def test_the_card_is_as_pct_says(cluster: Cluster) -> None:
    machine = cluster[CT]
    assert "10.0.0.5/24" in said(machine, "ip -o -4 address show dev eth0")
    assert said(machine, "cat /sys/class/net/eth0/address") == "bc:24:11:00:00:05"
    assert "default via 10.0.0.1 dev eth0" in said(machine, "ip route")
    assert "PVE" in said(machine, "networkctl status eth0 --no-pager; cat /etc/systemd/network/*")
    assert str(cluster.address(CT)) == "10.0.0.5"
    assert cluster.reaches(CT, WEB, limit_s=10) and cluster.reaches(WEB, CT, limit_s=10)


def test_name_and_resolver_are_as_on_proxmox(cluster: Cluster) -> None:
    machine = cluster[CT]
    assert said(machine, "hostname") == "ct101"
    # What Proxmox writes there goes when NixOS makes the link to its own resolver.
    assert said(machine, "readlink /etc/resolv.conf") == "/run/systemd/resolve/stub-resolv.conf"


def test_ids_and_limits_are_as_on_proxmox(cluster: Cluster) -> None:
    machine = cluster[CT]
    inside, outside, count = said(machine, "cat /proc/1/uid_map").split()
    assert (inside, count) == ("0", "65536") and int(outside) > 65536
    assert said(machine, "nproc") == "1"
    assert said(machine, "nproc --all") != "" and "ct101" in said(machine, "uname -n")
    greedy = machine.run("tail -c 400M /dev/zero | tail -c 400M >/dev/null", timeout_s=120)
    assert not greedy.succeeded


def test_an_address_is_leased(nixos_cluster: Callable[..., Cluster]) -> None:
    leased = nixos_cluster(CT, backend="container", pct={CT: LEASED})
    assert f"{leased.address(CT)}/24" in said(leased[CT], "ip -o -4 address show dev eth0")
    assert said(leased[CT], "hostname") == CT


def test_a_host_that_does_not_take_its_address_is_told(
    nixos_cluster: Callable[..., Cluster],
) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"eth0 has not taken 10\.0\.0\.7/24"):
        nixos_cluster(
            STUBBORN,
            backend="container",
            pct={STUBBORN: "--net0 name=eth0,ip=10.0.0.7/24,gw=10.0.0.1"},
        )
