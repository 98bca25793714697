"""Clusters of VMs, and of a VM and a container, of the example flake. It boots three emulated
guests, so it runs when asked to: ``PYTEST_NIXOS_VM_CLUSTER=1``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machine.test_on_guest import EXAMPLES, LIMIT_S, OVERRIDES, run_on

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs (./dev test)"),
    pytest.mark.skipif(
        os.environ.get("PYTEST_NIXOS_VM_CLUSTER") != "1",
        reason="boots three emulated VMs: PYTEST_NIXOS_VM_CLUSTER=1",
    ),
]


# A router between two networks that opens a port on one of its cards, and who is beside it.
FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }:
    let
      host = more: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ ./base.nix more ];
      };
      router = { pkgs, ... }: {
        networking.hostName = "router";
        networking.useDHCP = false;
        networking.interfaces.enp3s0.ipv4.addresses = [ { address = "192.168.7.1"; prefixLength = 24; } ];
        networking.interfaces.wan0.ipv4.addresses = [ { address = "198.51.100.1"; prefixLength = 24; } ];
        networking.nftables.enable = true;
        networking.firewall.interfaces.enp3s0.allowedTCPPorts = [ 8080 ];
        systemd.sockets.door = { wantedBy = [ "sockets.target" ]; listenStreams = [ "8080" ]; socketConfig.Accept = true; };
        systemd.services."door@".serviceConfig.ExecStart = "${pkgs.coreutils}/bin/true";
      };
    in
    {
      nixosConfigurations.lone = host router;
      nixosConfigurations.router = host {
        imports = [ router ];
        networking.vlans.office = { id = 5; interface = "enp3s0"; };
        networking.interfaces.office.ipv4.addresses = [ { address = "10.5.0.1"; prefixLength = 24; } ];
      };
    };
}
"""
OTHER_FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.client = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ./base.nix {
        networking.hostName = "client";
        networking.useDHCP = false;
        systemd.network.links."10-lan" = { matchConfig.MACAddress = "02:11:22:33:44:55"; linkConfig.Name = "lan0"; };
        systemd.network = {
          enable = true;
          netdevs."20-office" = { netdevConfig = { Kind = "vlan"; Name = "office"; }; vlanConfig.Id = 5; };
          networks."30-lan" = { matchConfig.Name = "lan0"; address = [ "192.168.7.2/24" ]; vlan = [ "office" ]; };
          networks."40-office" = { matchConfig.Name = "office"; address = [ "10.5.0.2/24" ]; };
        };
      } ];
    };
  };
}
"""


LEAF_FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.leaf = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ./base.nix {
        networking.hostName = "leaf";
        networking.useDHCP = false;
        networking.interfaces.eth0.ipv4.addresses = [ { address = "10.20.0.20"; prefixLength = 24; } ];
        networking.firewall.allowedTCPPorts = [ 4222 ];
        services.nats = {
          enable = true;
          serverName = "leaf";
          settings.leafnodes.remotes = [ { url = "nats-leaf://10.20.0.11:7422"; } ];
          # The module writes `jetstream = { }` for none, which turns it on: the leaf would then answer what the cluster is asked, first or last.
          settings.jetstream = nixpkgs.lib.mkForce false;
        };
      } ];
    };
  };
}
"""


def make_flake(directory: Path, text: str) -> Path:
    """Write a flake of hosts that rest on the example's base."""
    directory.mkdir()
    (directory / "base.nix").write_text((EXAMPLES / "modules" / "base.nix").read_text())
    (directory / "flake.nix").write_text(text)
    return directory


def test_on_named_cards_of_two_flakes(tmp_path: Path) -> None:
    own = make_flake(tmp_path / "own", FLAKE)
    make_flake(tmp_path / "other", OTHER_FLAKE)
    run_on(f"{own}#router", tmp_path, "guest_named_cards.py", cwd=tmp_path)


def test_on_a_vm_of_its_own(tmp_path: Path) -> None:
    own = make_flake(tmp_path / "own", FLAKE)
    run_on(f"{own}#lone", tmp_path, "guest_own_cards.py", cwd=tmp_path)


@pytest.mark.parametrize("backend", ["container", "vm"])
def test_nats(tmp_path: Path, backend: str) -> None:
    make_flake(tmp_path / "other", LEAF_FLAKE)
    more = ("--nixos-backend", backend)
    # Four emulated boots, where there are no snapshots, and elections among emulated servers.
    limit_s = 2400 if backend == "vm" else LIMIT_S
    run_on(
        f"{EXAMPLES}#nats-1", tmp_path, "guest_nats.py", cwd=tmp_path, more=more, limit_s=limit_s
    )


def test_on_a_cluster_of_vms(tmp_path: Path) -> None:
    run_on(f"{EXAMPLES}#nats-1", tmp_path, "guest_vm_cluster.py")
