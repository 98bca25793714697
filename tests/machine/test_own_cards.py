"""A VM on its own has the network cards that its host names, as Nix makes it: run script and .link
files, by the modules of the nixpkgs that ``PYTEST_NIXOS_NIXPKGS`` names, else of the offline
stand-in. Booted by test_vm_cluster.py, where that is asked for.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.support.nixpkgs_tree import NEEDS_NIXPKGS, NIXPKGS, OVERRIDES, PROGRAM, overlays

pytestmark = NEEDS_NIXPKGS

HOSTS = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations =
      let
        host = more: nixpkgs.lib.nixosSystem {
          system = "x86_64-linux";
          modules = [ { @OVERLAYS@ networking.hostName = "cards"; networking.useDHCP = false; system.stateVersion = "24.05"; } base more ];
        };
        base = { fileSystems."/" = { device = "/dev/sda1"; fsType = "ext4"; }; boot.loader.grub.device = "/dev/sda"; };
        named.networking.interfaces = { enp3s0.useDHCP = true; lan0.ipv4.addresses = [ { address = "10.0.0.1"; prefixLength = 24; } ]; };
      in
      {
        named = host named;
        plain = host { };
        usual = host { networking.interfaces.eth0.useDHCP = true; };
        matched = host { systemd.network.links."10-lan" = { matchConfig.MACAddress = "02:11:22:33:44:55"; linkConfig.Name = "lan0"; }; };
        decided = host { imports = [ named ]; virtualisation.vmVariant.networking.interfaces.eth0.useDHCP = true; };
        forwarded = host {
          imports = [ named ];
          virtualisation.vmVariant.virtualisation.forwardPorts = [ { from = "host"; host.port = 2222; guest.port = 22; } ];
        };
        settled = host { imports = [ named ]; virtualisation.vmVariant.virtualisation.memorySize = 700; };
      };
  };
}
"""


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    folder = tmp_path_factory.mktemp("cards")
    real = f"nixpkgs.overlays = {overlays(NIXPKGS)};" if NIXPKGS else ""
    (folder / "flake.nix").write_text(HOSTS.replace("@OVERLAYS@", real))
    inputs = {"nixpkgs": f"path:{Path(NIXPKGS).resolve()}"} if NIXPKGS else OVERRIDES
    settings = NixSettings(program=PROGRAM, override_inputs=tuple(inputs.items()))
    instrumentation = Instrumentation(channel_script="exit", snapshot=True, restrict_network=True)
    nix = Nix(runner=SubprocessRunner(), settings=settings)
    return Flake(FlakeRef(f"path:{folder}"), nix, instrumentation)


def made(flake: Flake, name: str) -> tuple[str, str]:
    """Return the run script's network options, and the names that .link files give, as the host's
    derivation holds them.
    """
    derivation = flake.evaluate(name, backend="vm").derivation
    listed = subprocess.run(
        ["nix-store", "--query", "--requisites", derivation],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    texts = [Path(path).read_text(errors="replace") for path in listed if path.endswith(".drv")]
    [script] = [text for text in texts if "user.0" in text]
    networks = re.findall(r"(-net nic\S*|-netdev user\S*|-device virtio-net\S*)", script)
    names = {
        name
        for text in texts
        if "PermanentMACAddress" in text
        for name in re.findall(r"Name=([a-z0-9]+)", text)
    }
    return " ".join(networks), " ".join(sorted(names))


@pytest.mark.parametrize("name", ["named", "settled"])
def test_a_vm_has_the_cards_that_its_host_names(flake: Flake, name: str) -> None:
    networks, names = made(flake, name)
    own, other = re.findall(r"mac(?:addr)?=(52:54:00:[0-9a-f:]{8})", networks)
    assert own != other
    assert networks.startswith(f"-net nic,netdev=user.0,macaddr={own},model=virtio")
    assert "-netdev user,id=user.1,net=10.0.3.0/24," in networks
    assert ",restrict=on -device virtio-net-pci,netdev=user.1," in networks
    assert names == "enp3s0 lan0"


def test_a_card_that_the_host_matches_has_that_address(flake: Flake) -> None:
    networks, names = made(flake, "matched")
    assert "macaddr=02:11:22:33:44:55" in networks and "user.1" not in networks
    assert names == "lan0"


@pytest.mark.parametrize("name", ["plain", "usual", "decided", "forwarded"])
def test_others_have_the_card_of_the_run_script(flake: Flake, name: str) -> None:
    networks, names = made(flake, name)
    assert "mac" not in networks and "user.1" not in networks
    assert names == ""
