"""Options of ``pct create``: what is read, what Proxmox would write, and what is refused."""

from __future__ import annotations

import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.machine.pct import Pct

NET = "--net0 name=eth0,bridge=vmbr0,ip=10.0.0.5/24,gw=10.0.0.1"
FILE = "etc/systemd/network/eth0.network"


def given(command: str) -> Pct:
    return Pct.parse(command, member="ct")


def network(card: str) -> list[str]:
    return given(f"--net0 name=eth0,{card}").files[FILE].splitlines()


def test_a_pasted_command_line() -> None:
    pct = given(
        f"pct create 101 local:vztmpl/nixos.tar.xz {NET},hwaddr=BC:24:11:00:00:05,ip6=fd00::5/64,firewall=1 "
        "--hostname web.example.org --nameserver '10.0.0.1 fd00::1' --searchdomain=example.org "
        "--memory 2048 --cores=2 --unprivileged 1 --rootfs local:8 --swap 0 --features nesting=1"
    )
    assert (pct.hostname, pct.memory_mib, pct.cores) == ("web", 2048, 2)
    assert pct.hardware == "bc:24:11:00:00:05"
    assert pct.addresses == ("10.0.0.5/24", "fd00::5/64")
    assert pct.files["etc/hostname"] == "web\n"
    assert pct.files["etc/resolv.conf"] == (
        "search example.org\nnameserver 10.0.0.1\nnameserver fd00::1\n"
    )


def test_what_proxmox_gives_by_itself() -> None:
    pct = given("--net0 name=eth0,ip=dhcp")
    assert (pct.hostname, pct.memory_mib, pct.cores, pct.addresses) == ("ct", 512, None, ())
    assert Pct.parse("--net0 name=eth0", member="../infra#web").hostname == "web"


@pytest.mark.parametrize(
    ("card", "lines"),
    [
        ("ip=dhcp", ["DHCP = ipv4", "IPv6AcceptRA = false"]),
        ("ip=dhcp,ip6=auto", ["DHCP = ipv4", "IPv6AcceptRA = true"]),
        ("ip=manual", ["DHCP = no", "IPv6AcceptRA = false"]),
        (
            "ip=10.0.0.5/24,gw=10.0.0.1,ip6=fd00::5/64,gw6=fe80::1",
            [
                *("Address = 10.0.0.5/24", "Gateway = 10.0.0.1", "Address = fd00::5/64"),
                *("Gateway = fe80::1", "DHCP = no", "IPv6AcceptRA = false"),
            ],
        ),
        (
            "ip=192.0.2.5/32,gw=10.0.0.1",
            [
                *("Address = 192.0.2.5/32", "Gateway = 10.0.0.1"),
                *("DHCP = no", "IPv6AcceptRA = false"),
                *("", "[Route]", "Destination = 10.0.0.1/32", "Scope = link"),
            ],
        ),
    ],
)
def test_the_network_file_of_proxmox(card: str, lines: list[str]) -> None:
    head = ["[Match]", "Name = eth0", "", "[Network]"]
    assert network(card) == [*head, "Description = Interface eth0 autoconfigured by PVE", *lines]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("--memory 512", "pct of ct: no --net0"),
        ("--net0 name=eth0,ip=10.0.0.5", "net0 ip is '10.0.0.5'"),
        ("--net0 name=eth0,ip=10.0.0/24", "net0 ip is '10.0.0/24'"),
        ("--net0 name=eth0,ip=fd00::5/64", "net0 ip is 'fd00::5/64'"),
        ("--net0 name=eth0,ip6=dhcp", "net0 ip6 is 'dhcp'"),
        ("--net0 name=eth0,ip=10.0.0.5/24,ip6=auto", "net0 ip6 is 'auto'"),
        ("--net0 name=eth0,ip=10.0.0.5/24,gw=router", "gw is 'router'"),
        ("--net0 name=eth0,ip=10.0.0.5/24,gw=fd00::1", "gw is 'fd00::1'"),
        ("--net0 name=eth1,ip=dhcp", "net0 name is 'eth1'"),
        ("--net0 ip=dhcp", "net0 name is ''"),
        ("--net0 name=eth0,ip", "net0 is 'name=eth0,ip'"),
        ("--net0 name=eth0,ip=dhcp,ip=dhcp", "net0 is "),
        ("--net0 name=eth0,hwaddr=1:2", "net0 hwaddr is '1:2'"),
        ("--net0 name=eth0,tag=5", "--net0 tag= is not modelled"),
        (f"{NET} --net1 name=eth1,ip=dhcp", "--net1 is not modelled"),
        (f"{NET} --password x", "--password is not modelled"),
        (f"{NET} --unprivileged 0", "unprivileged is '0'"),
        (f"{NET} --ostype debian", "ostype is 'debian'"),
        (f"{NET} --memory 8", "memory is '8'"),
        (f"{NET} --memory 1G", "memory is '1G'"),
        (f"{NET} --cores 0", "cores is '0'"),
        (f"{NET} --hostname a_b", "hostname is 'a_b'"),
        (f"{NET} --nameserver dns", "nameserver is 'dns'"),
        (f"{NET} --memory", "'--memory' is no option with a value"),
        (f"{NET} 512", "'512' is no option"),
        (f"{NET} {NET}", "--net0 is there twice"),
        (f"{NET} --hostname 'a", "cannot be read"),
    ],
)
def test_what_is_refused(command: str, said: str) -> None:
    with pytest.raises(SettingsError) as told:
        given(command)
    assert said in told.value.message
    assert told.value.message.startswith("pct of ct: ")
    assert told.value.remedy
