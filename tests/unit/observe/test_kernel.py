"""Kernel parameters and modules: parsers on kernel text, scripts on the kernel that runs the
tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.observe.base import observe
from pytest_nixos.observe.kernel import (
    applied_sysctls,
    modules,
    normalise_sysctl,
    sysctl_path,
    sysctl_tree,
    sysctls,
)
from tests.unit.observe.here import here, parsed


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("vm.swappiness", "/proc/sys/vm/swappiness"),
        ("net.ipv4.conf.eth0/100.rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
        ("net/ipv4/conf/eth0.100/rp_filter", "/proc/sys/net/ipv4/conf/eth0.100/rp_filter"),
    ],
)
def test_keys_become_paths_as_sysctl_finds_them(key: str, path: str) -> None:
    assert sysctl_path(key) == path


def test_sysctls_are_read_and_missing_ones_told() -> None:
    keys = ["kernel.ostype", "net.ipv4.tcp_rmem", "no.such/key", "kernel.$(echo pid_max)"]
    values = observe(here, sysctls(keys))
    assert values["kernel.ostype"] == "Linux"
    assert values["net.ipv4.tcp_rmem"] == Path("/proc/sys/net/ipv4/tcp_rmem").read_text().rstrip(
        "\n"
    )
    assert (values["no.such/key"], values["kernel.$(echo pid_max)"]) == (None, None)
    assert normalise_sysctl(values["net.ipv4.tcp_rmem"] or "").count(" ") == 2


def test_a_glob_asks_for_every_interface() -> None:
    values = observe(here, sysctls(["net.ipv4.conf.*.rp_filter", "net/ipv4/conf/all/rp_filter"]))
    interfaces = {path.name for path in Path("/proc/sys/net/ipv4/conf").iterdir()}
    assert {"all", "default", "lo"} <= interfaces
    assert values["net/ipv4/conf/all/rp_filter"] is not None
    plain = {name for name in interfaces if "." not in name}
    assert {f"net.ipv4.conf.{name}.rp_filter" for name in plain} <= set(values)
    assert all(value is not None and value.strip().isdigit() for value in values.values())


def test_a_glob_means_what_nobody_wrote_out() -> None:
    keys = [f"net.ipv4.conf.{name}.rp_filter" for name in ("all", "default", "eth0", "lo")]
    keys += ["net/ipv4/conf/eth0.100/rp_filter", "net.ipv4.conf.eth0.arp_filter"]
    declared = {
        "net.ipv4.conf.*.rp_filter": "2",
        "net.ipv4.conf.eth0.rp_filter": "1",
        "-net.ipv4.conf.all.rp_filter": "",
        "vm.absent": "3",
    }
    assert applied_sysctls(declared, keys) == {
        "net.ipv4.conf.eth0.rp_filter": "1",
        "vm.absent": "3",
        "net.ipv4.conf.default.rp_filter": "2",
        "net.ipv4.conf.lo.rp_filter": "2",
        "net/ipv4/conf/eth0.100/rp_filter": "2",
    }


def test_a_tree_of_sysctls() -> None:
    values = observe(here, sysctl_tree("net.ipv4.conf.lo"))
    assert values["net.ipv4.conf.lo.forwarding"] in ("0", "1")
    assert all(key.startswith("net.ipv4.conf.lo.") for key in values)


def test_module_states() -> None:
    answer = (
        "=rules\ninstall dccp /run/current-system/sw/bin/false\ninstall odd modprobe other\n=built-in\nkernel/drivers/loop.ko\n"
        "=loadable\nkernel/net/sctp/sctp.ko.xz\nkernel/net/dccp/dccp.ko.xz\n=loaded\nusb_storage\next4\n=complete\n"
    )
    names = ["dccp", "sctp", "rds", "loop", "usb-storage"]
    assert parsed(modules(names), answer) == {
        "dccp": "blocked", "sctp": "loadable", "rds": "absent", "loop": "built-in", "usb-storage": "loaded",
    }  # fmt: skip
    assert parsed(modules(names), answer.replace("=complete", "")) is None
    assert "usb[-_]storage" in modules(names).script
