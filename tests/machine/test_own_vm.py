"""The VM of a host is the one that the host itself would make, with what we add: whichever way it
is evaluated.
"""

from __future__ import annotations

import json
import os

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.argv import NixSettings
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.nix.refs import FlakeRef
from pytest_nixos.nix.store import Nix

OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")

HOSTS = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = rec {
      ordinary = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          {
            networking.hostName = "it"; boot.loader.systemd-boot.enable = true;
            virtualisation.vmVariant = { config, ... }: { virtualisation.memorySize = 700; environment.etc.memory.text = toString config.virtualisation.memorySize; };
          }
        ];
      };
      # As a release that does not tell where definitions stand.
      untold = ordinary // {
        options = ordinary.options // {
          virtualisation = builtins.mapAttrs (_: option: removeAttrs option [ "definitionsWithLocations" ]) ordinary.options.virtualisation;
        };
      };
      own = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          ({ config, pkgs, ... }: {
            networking.hostName = "it";
            # Stronger than what nixpkgs makes of the variant, and of no more weight than what is made in it.
            system.build.vm =
              pkgs.writeText "own-vm-of-${toString config.virtualisation.vmVariant.virtualisation.memorySize}" "" // { meta.mainProgram = "run-own-vm"; };
          })
        ];
      };
    };
  };
}
"""


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    folder = tmp_path_factory.mktemp("own")
    (folder / "flake.nix").write_text(HOSTS)
    settings = NixSettings(override_inputs=tuple(OVERRIDES.items()))
    instrumentation = Instrumentation(channel_script="s", snapshot=True, memory_mib=900)
    nix = Nix(runner=SubprocessRunner(), settings=settings)
    return Flake(FlakeRef(f"path:{folder}"), nix, instrumentation)


@pytest.mark.parametrize("backend", ["vm", "boot-loader"])
def test_both_ways_come_to_one_machine(flake: Flake, backend: str) -> None:
    def machine(host: str) -> HostConfig:
        return flake.evaluate(host, backend=backend)

    one, other = machine("ordinary"), machine("untold")
    assert one.derivation == other.derivation
    assert one.toplevel == other.toplevel
    assert one.changed == other.changed


def test_a_host_that_makes_its_vm_by_itself_keeps_it(flake: Flake) -> None:
    config = flake.evaluate("own", backend="vm")
    assert config.program == "bin/run-own-vm"
    assert config.derivation.endswith("-own-vm-of-900.drv")
