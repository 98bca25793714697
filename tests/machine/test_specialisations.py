"""Specialisations as hosts, as a module system makes them: nixpkgs' own where ``PYTEST_NIXOS_NIXPKGS``
names a tree, else that of the offline stand-in.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.errors import EvalError, FlakeError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.support.nixpkgs_tree import NEEDS_NIXPKGS, NIXPKGS, OVERRIDES, PROGRAM, overlays

pytestmark = NEEDS_NIXPKGS

FLAKE = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.05";
  outputs = { self, nixpkgs }: let
    web = { lib, ... }: {
      @OVERLAYS@
      networking.hostName = "web";
      system.stateVersion = "24.05";
      fileSystems."/" = { device = "/dev/vda1"; fsType = "ext4"; };
      boot.loader.grub.device = "/dev/vda";
      networking.firewall.allowedTCPPorts = [ 80 ];
      specialisation.gaming.configuration = { config, ... }: {
        networking.firewall.allowedTCPPorts = lib.mkIf (config.networking.hostName == "gamer") [ 27036 ];
        networking.hostName = lib.mkForce "gamer";
      };
    };
    broken.specialisation.broken.configuration.networking.hostName = throw "not this one";
    host = modules: nixpkgs.lib.nixosSystem { system = "x86_64-linux"; inherit modules; };
  in {
    nixosConfigurations.web = host [ web ];
    nixosConfigurations.half = host [ web broken ];
  };
}
"""


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    folder = tmp_path_factory.mktemp("specialised")
    real = f"nixpkgs.overlays = {overlays(NIXPKGS)};" if NIXPKGS else ""
    (folder / "flake.nix").write_text(FLAKE.replace("@OVERLAYS@", real))
    inputs = {"nixpkgs": f"path:{Path(NIXPKGS).resolve()}"} if NIXPKGS else OVERRIDES
    settings = NixSettings(program=PROGRAM, override_inputs=tuple(inputs.items()))
    nix = Nix(runner=SubprocessRunner(), settings=settings)
    return Flake(FlakeRef(f"path:{folder}"), nix, Instrumentation(channel_script="the channel"))


def test_specialisation_is_a_host_with_what_it_inherits_and_what_it_adds(flake: Flake) -> None:
    host = flake.evaluate(
        "web^gaming",
        option_paths=("networking.hostName",),
        where=("networking.hostName", "networking.firewall.allowedTCPPorts"),
    )
    assert host.host_name == "gamer"
    assert [ports.first for ports in host.firewall.everywhere.tcp] == [80, 27036]
    assert host.option("networking.hostName").value == "gamer"
    assert host.where["networking.hostName"].priority == 50, "by mkForce of the specialisation"


def test_its_machine_is_instrumented_and_not_its_parents(flake: Flake) -> None:
    host, parent = flake.evaluate("web^gaming"), flake.evaluate("web")
    assert host.toplevel != parent.toplevel
    assert "gamer" in host.toplevel
    assert host.changed.keys() == parent.changed.keys()
    generation = flake.instantiate_generation("web^gaming", backend="vm", delta="{ }")
    assert host.toplevel.partition("-")[2] == generation.partition("-")[2].removesuffix(".drv")


def test_unknown_specialisation_is_told_with_those_that_there_are(flake: Flake) -> None:
    with pytest.raises(FlakeError, match=r"the flake has half, half\^broken, half\^gaming, web"):
        flake.evaluate("half^gamin")


def test_a_broken_one_takes_no_other_with_it(flake: Flake) -> None:
    assert flake.evaluate("half^gaming").host_name == "gamer"
    with pytest.raises(EvalError, match="not this one"):
        flake.evaluate("half^broken")
