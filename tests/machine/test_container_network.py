"""The network of a container for real: leases and router advertisements as at home, a stand-in for
the internet, and what needs an internet that is not there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machine.test_example_flake import OVERRIDES, judge

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = builtins.mapAttrs
      (name: module: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ { system.stateVersion = "25.11"; networking.hostName = "it"; } module ];
      })
      { offline = ./offline.nix; networkd = ./networkd.nix; dhcpcd = ./dhcpcd.nix; vm = ./vm.nix; };
  };
}
"""
OFFLINE = """
{ lib, ... }:
let
  service = script: more: lib.mkMerge [ { wantedBy = [ "multi-user.target" ]; inherit script; } more ];
in
{
  boot.isContainer = true;
  systemd.services = {
    # bash resolves the name itself.
    fetch = service "exec 3<>/dev/tcp/data.example.org/443" { serviceConfig.Type = "oneshot"; };
    needs-fetch = service "sleep infinity" { requires = [ "fetch.service" ]; after = [ "fetch.service" ]; };
    "acme-example.org" = service "sleep infinity" { serviceConfig = { Type = "oneshot"; TimeoutStartSec = "4s"; }; };
    agent = service "exec 3<>/dev/tcp/agent.example.org/443" {
      serviceConfig = { Restart = "always"; RestartSec = "100ms"; };
      unitConfig.StartLimitIntervalSec = 0;
    };
    broken = service "echo 'Could not resolve host: telemetry.example.org'; cat /etc/absent" { };
    database = service "echo 'could not translate host name \\"db\\" to address: Name or service not known'; exit 1" { };
    # For ever, as a container does that pulls its image.
    podman-web = service
      "echo 'dial tcp: lookup registry-1.docker.io on 10.0.2.3:53: i/o timeout'; sleep infinity"
      { serviceConfig = { Type = "oneshot"; TimeoutStartSec = "infinity"; }; };
  };
}
"""
NETWORKD = """
{ lib, ... }:
{
  boot.isContainer = true;
  systemd.network.enable = true;
  systemd.network.networks."10-eth" = {
    matchConfig.Name = "eth0";
    # Nothing but IPv6, so that only a router advertisement brings it online.
    networkConfig = { DHCP = "no"; IPv6AcceptRA = true; };
    linkConfig.RequiredFamilyForOnline = "ipv6";
  };
  systemd.additionalUpstreamSystemUnits = [ "systemd-networkd-wait-online.service" ];
  systemd.services.systemd-networkd-wait-online = {
    wantedBy = [ "network-online.target" ];
    overrideStrategy = "asDropin";
    path = lib.mkForce [ ];
  };
  systemd.targets.network-online.wantedBy = [ "multi-user.target" ];
}
"""
DHCPCD = """
{ pkgs, ... }:
{
  boot.isContainer = true;
  users.users.dhcpcd = { isSystemUser = true; group = "dhcpcd"; };
  users.groups.dhcpcd = { };
  systemd.services.lease = {
    wantedBy = [ "multi-user.target" ];
    path = [ pkgs.dhcpcd ];
    serviceConfig = { Type = "oneshot"; RemainAfterExit = true; StateDirectory = "dhcpcd"; RuntimeDirectory = "dhcpcd"; };
    # Both families, or it fails.
    script = "dhcpcd --waitip=46 --timeout 20 --config /dev/null eth0";
  };
}
"""
VM = """
{
  fileSystems."/" = { device = "/dev/vda"; fsType = "ext4"; };
  boot.loader.grub.device = "/dev/vda";
  boot.initrd.systemd.enable = false;
  services.resolved.enable = true;
  systemd.network = {
    enable = true;
    networks."10-link" = {
      matchConfig.Type = "ether";
      networkConfig.DHCP = "ipv4";
    };
  };
}
"""
TEST_ONLINE = """
def test_it_has_an_address_of_the_link(nixos_machine):
    shown = nixos_machine.run("ip -6 -o address show dev eth0 scope global").stdout_text
    assert "fd70:7974:6e69:233:" in shown, shown
"""
TEST_STAND_IN = """
def test_it_finds_names_and_the_time(nixos_machine):
    leased = nixos_machine.run("ip -4 -o address show dev eth0").stdout_text
    assert "10.233.0.2/24" in leased
    assert nixos_machine.run("getent ahostsv4 www.example.org").stdout_text.startswith("10.233.0.1 ")
    assert nixos_machine.run("getent ahostsv4 www.example.invalid").exit_status != 0
    asked = "exec 3<>/dev/udp/10.233.0.1/123; printf '\\\\x23%047d' 0 | tr 0 '\\\\0' >&3; timeout 5 head -c 1 <&3 | od -An -tx1"
    assert nixos_machine.run(asked).stdout_text.strip() == "24"
    # What is not served is refused at once, and not waited for.
    refused = nixos_machine.run("exec 3<>/dev/tcp/www.example.org/443", timeout_s=5)
    assert "refused" in refused.stderr_text
"""
TEST_STAND_IN_VM = """
import time

def test_it_finds_names_and_the_time(nixos_machine):
    found = nixos_machine.run("getent ahostsv4 www.example.org").stdout_text
    assert found.startswith("10.0.2.2 "), found
    assert nixos_machine.run("getent ahostsv4 www.example.invalid").exit_status != 0
    # Servers by address are served too.
    asked = "exec 3<>/dev/udp/162.159.200.1/123; printf '\\\\x23%047d' 0 | tr 0 '\\\\0' >&3; timeout 5 head -c 1 <&3 | od -An -tx1"
    assert nixos_machine.run(asked).stdout_text.strip() == "24"
    refused = nixos_machine.run("exec 3<>/dev/tcp/www.example.org/443", timeout_s=10)
    assert "refused" in refused.stderr_text
    for _ in range(60):
        shown = nixos_machine.run("timedatectl show --property NTPSynchronized").stdout_text
        if "yes" in shown:
            return
        time.sleep(1)
    raise AssertionError(nixos_machine.run("journalctl --unit systemd-timesyncd").stdout_text)
"""


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    path = tmp_path / "flake"
    path.mkdir()
    (path / "flake.nix").write_text(FLAKE)
    for name, text in (
        ("offline", OFFLINE),
        ("networkd", NETWORKD),
        ("dhcpcd", DHCPCD),
        ("vm", VM),
    ):
        (path / f"{name}.nix").write_text(text)
    return path


def test_units_that_need_the_internet_are_not_judged_and_broken_ones_are(
    flake: Path, tmp_path: Path
) -> None:
    _, report, printed = judge(
        "offline",
        tmp_path,
        *("--nixos-suite", "boot", "--nixos-suite", "units"),
        flake=flake,
    )
    found = {f["control"]: f for f in report["findings"]}

    assert found["BOOT-001"]["outcome"] == "failed"
    assert sorted(found["BOOT-001"]["blames"]) == ["unit:broken.service", "unit:database.service"]
    told = found["UNIT-011"]
    assert told["outcome"] == "not-applicable"
    assert set(told["blames"]) == {f"internet:{unit}" for unit in told["observed"]}
    assert set(told["observed"]) == {
        "acme-example.org.service",
        "agent.service",
        "fetch.service",
        "podman-web.service",
    }
    for control in ("BOOT-002", "BOOT-004", "BOOT-005", "UNIT-010"):
        assert found[control]["outcome"] == "not-applicable", found[control]
        assert found[control]["reason"].startswith("needs the internet: not judged: ")
        assert found[control]["caused_by"] == ["UNIT-011"]
    assert "needs the internet: not judged: " in printed


def test_a_container_is_online_by_a_router_advertisement(flake: Path, tmp_path: Path) -> None:
    (tmp_path / "test_online.py").write_text(TEST_ONLINE)
    status, report, printed = judge(
        "networkd",
        tmp_path,
        *("test_online.py", "--nixos-suite", "boot", "-k", "address_of or BOOT-001 or BOOT-002"),
        flake=flake,
    )
    assert status == 0, printed
    assert {f["outcome"] for f in report["findings"]} == {"passed"}


def test_dhcpcd_gets_both_families_and_the_stand_in_answers(flake: Path, tmp_path: Path) -> None:
    (tmp_path / "test_stand_in.py").write_text(TEST_STAND_IN)
    status, report, printed = judge(
        "dhcpcd",
        tmp_path,
        *("test_stand_in.py", "--nixos-suite", "boot", "--nixos-network", "stand-in"),
        *("-k", "finds or BOOT-001 or BOOT-002"),
        flake=flake,
    )
    assert status == 0, printed
    assert {f["outcome"] for f in report["findings"]} == {"passed"}


@pytest.mark.skipif(
    "PYTEST_NIXOS_STAND_IN_VM" not in os.environ, reason="PYTEST_NIXOS_STAND_IN_VM: boots a VM"
)
def test_a_vm_finds_names_and_the_time(flake: Path, tmp_path: Path) -> None:
    (tmp_path / "test_stand_in.py").write_text(TEST_STAND_IN_VM)
    # Booted, and then as a clone of its snapshot.
    for _ in range(2):
        status, report, printed = judge(
            "vm",
            tmp_path,
            *("test_stand_in.py", "--nixos-suite", "boot", "--nixos-network", "stand-in"),
            *("-k", "finds or BOOT-002"),
            flake=flake,
        )
        assert status == 0, printed
        assert {f["outcome"] for f in report["findings"]} == {"passed"}
    assert not any("timesyncd" in str(group) for group in report["run"]["hosts"]["vm"]["changes"])


def test_a_vm_without_a_network_of_its_own_gets_no_stand_in(flake: Path, tmp_path: Path) -> None:
    status, report, printed = judge(
        "vm",
        tmp_path,
        *("--nixos-network", "stand-in", "--nixos-run-script-has-my-rights", "-k", "BOOT-003"),
        flake=flake,
    )
    assert status != 0
    assert "--nixos-network stand-in needs the sandbox of the run script" in printed
    assert report["run"]["hosts"]["vm"]["phases_s"].keys() == {"evaluate"}
