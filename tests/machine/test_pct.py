"""Containers of Proxmox in a network, as ``pct create`` gives it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machine.test_on_guest import EXAMPLES, OVERRIDES, run_on

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs (./dev test)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }:
    let
      host = more: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ ./base.nix more ];
      };
      proxmox = "${nixpkgs}/nixos/modules/virtualisation/proxmox-lxc.nix";
    in
    {
      nixosConfigurations.ct = host { imports = [ proxmox ]; };
      nixosConfigurations.stubborn = host {
        imports = [ proxmox ];
        proxmoxLXC.manageNetwork = true;
        networking.hostName = "stubborn";
        networking.useDHCP = false;
      };
      nixosConfigurations.web = host {
        boot.isContainer = true;
        networking.hostName = "web";
        networking.useDHCP = false;
        networking.interfaces.eth0.ipv4.addresses = [ { address = "10.0.0.1"; prefixLength = 24; } ];
      };
    };
}
"""


def test_on_containers_of_proxmox(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "base.nix").write_text((EXAMPLES / "modules" / "base.nix").read_text())
    (own / "flake.nix").write_text(FLAKE)
    run_on(f"{own}#web", tmp_path, "guest_pct.py")
