"""Kernel parameters of one interface: what the kernel makes of its own value and that of all."""

from __future__ import annotations

import pytest

from pytest_nixos.observe.network.interface_sysctl import InterfaceParameter


def in_force(key: str, of_all: str, own: str, *, forwards: bool = False) -> str:
    parameter = InterfaceParameter.of_all(key)
    assert parameter is not None
    return parameter.in_force(of_all, own, forwards=forwards)


@pytest.mark.parametrize(
    ("key", "of_all", "own", "wanted"),
    [
        ("net.ipv4.conf.all.rp_filter", "1", "2", "2"),
        ("net.ipv4.conf.all.rp_filter", "1", "0", "1"),
        ("net.ipv4.conf.all.accept_source_route", "0", "1", "0"),
        ("net.ipv4.conf.all.send_redirects", "0", "1", "1"),
        ("net.ipv4.conf.all.route_localnet", "0", "1", "1"),
        ("net.ipv4.ip_forward", "0", "1", "1"),
        ("net.ipv6.conf.all.accept_ra", "0", "1", "1"),
        ("net.ipv6.conf.all.accept_source_route", "0", "1", "0"),
        ("net.ipv6.conf.all.accept_source_route", "0", "-1", "-1"),
    ],
)
def test_all_and_own_are_joined_as_the_kernel_does(
    key: str, of_all: str, own: str, wanted: str
) -> None:
    assert in_force(key, of_all, own) == wanted


def test_redirects_depend_on_whether_the_interface_forwards() -> None:
    key = "net.ipv4.conf.all.accept_redirects"
    assert in_force(key, "0", "1") == "1"
    assert in_force(key, "0", "1", forwards=True) == "0"


def test_only_what_is_about_all_interfaces_has_cases() -> None:
    for key in ("net.ipv4.conf.default.rp_filter", "vm.swappiness", "net.ipv4.conf.eth0.rp_filter"):
        assert InterfaceParameter.of_all(key) is None


def test_cases_are_what_the_machine_has_and_what_is_declared() -> None:
    parameter = InterfaceParameter.of_all("net.ipv4.conf.all.send_redirects")
    assert parameter is not None
    values = {
        "net.ipv4.conf.all.send_redirects": "0",
        "net.ipv4.conf.default.send_redirects": "1",
        "net.ipv4.conf.lo.send_redirects": "1",
        "net.ipv4.conf.eth0.send_redirects": "1",
        "net.ipv4.conf.eth1.send_redirects": "0",
        "net/ipv4/conf/eth0.100/send_redirects": "1",
        "net.ipv4.conf.eth1.rp_filter": "1",
    }
    declared = {"net.ipv4.conf.wan0.send_redirects": "1", "net.ipv4.conf.*.send_redirects": "0"}
    assert parameter.cases(values, declared) == {
        "eth0": "1", "eth0.100": "1", "eth1": "0", "wan0": "1",
    }  # fmt: skip
    assert parameter.key("eth0.100") == "net/ipv4/conf/eth0.100/send_redirects"
