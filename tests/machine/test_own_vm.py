"""The VM of a host is the one that the host itself would make, with what we add: whichever way it
is evaluated.
"""

from __future__ import annotations

import json
import os

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings, eval_argv
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.expression import Instrumentation, evaluation_expression
from pytest_nixos.nix.flake import Flake

OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")

HOSTS = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: let
    homes = more: nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [
        ({ config, lib, ... }: {
          options.home-manager.users = lib.mkOption {
            default = { };
            type = lib.types.attrsOf (lib.types.submodule ({ name, ... }: {
              options.shell = lib.mkOption { type = lib.types.str; apply = shell: builtins.trace "the home of ${name} is evaluated" shell; };
            }));
          };
          config = {
            networking.hostName = "it";
            home-manager.users.alice.shell = "fish";
            systemd.services = lib.mapAttrs' (name: home: lib.nameValuePair "home-manager-${name}" { environment.SHELL = home.shell; }) config.home-manager.users;
          };
        })
        more
      ];
    };
  in {
    nixosConfigurations = rec {
      at-home = homes { };
      home-of-the-vm = homes ({ lib, options, ... }: {
        home-manager.users = lib.mkIf (options.virtualisation ? memorySize) { bob.shell = "bash"; };
      });
      home-in-the-variant = homes ({ lib, ... }: { virtualisation.vmVariant.home-manager.users.alice.shell = lib.mkForce "bash"; });
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
      # Packages of another nixpkgs than its modules.
      two-nixpkgs = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          {
            networking.hostName = "it";
            nixpkgs.pkgs = nixpkgs.legacyPackages.x86_64-linux // { path = "/nix/store/00000000000000000000000000000000-source"; };
            systemd.services.backup.script = "true";
          }
        ];
      };
      asking = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          ({ lib, ... }: {
            networking.hostName = "it";
            virtualisation.vmVariant = _: builtins.trace "the variant's modules are evaluated" {
              virtualisation.memorySize = 700;
              virtualisation.cores = lib.mkForce 3;
              virtualisation.mountHostNixStore = lib.mkForce false;
            };
          })
        ];
      };
      sharing = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          {
            networking.hostName = "it";
            virtualisation.vmVariant.virtualisation.sharedDirectories.data = { source = "/srv"; target = "/srv"; };
          }
        ];
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


def test_services_of_nixpkgs_modules_are_nobodys_own(flake: Flake) -> None:
    assert flake.evaluate("two-nixpkgs", backend="vm").own_services == frozenset({"backup.service"})


def test_a_host_that_makes_its_vm_by_itself_keeps_it(flake: Flake) -> None:
    config = flake.evaluate("own", backend="vm")
    assert config.program == "bin/run-own-vm"
    assert config.derivation.endswith("-own-vm-of-900.drv")


def test_what_the_host_asks_is_told_beside_what_its_machine_has(flake: Flake) -> None:
    config = flake.evaluate("asking", backend="vm")
    assert config.vm is not None
    assert (config.vm.memory_mib, config.vm.cores) == (700, 3)
    told = {
        path: pair for path, pair in config.changed.items() if path.startswith("virtualisation")
    }
    assert told == {
        "virtualisation.memorySize": (700, 900),
        "virtualisation.graphics": (True, False),
        "virtualisation.restrictNetwork": (False, True),
        "virtualisation.useNixStoreImage": (False, True),
        "virtualisation.sharedDirectories": (["shared", "xchg"], []),
    }
    # By default the store is shared and writable.
    ordinary = flake.evaluate("ordinary", backend="vm").changed
    assert ordinary["virtualisation.mountHostNixStore"] == (True, False)
    assert ordinary["virtualisation.writableStore"] == (True, False)
    assert ordinary["virtualisation.sharedDirectories"] == (["nix-store", "shared", "xchg"], [])


def test_a_host_with_shares_keeps_them_all(flake: Flake) -> None:
    config = flake.evaluate("sharing", backend="vm")
    assert config.snapshot_refusal == "it mounts a share of the host machine (data)"
    assert not {p for p in config.changed if "Store" in p or "sharedDirectories" in p}
    assert config.machine_file_systems is not None
    assert {"/srv", "/nix/.ro-store", "/tmp/xchg"} <= set(config.machine_file_systems)


def test_the_modules_of_a_vm_are_evaluated_once(flake: Flake) -> None:
    """What the host asks of its VM is read in the machine, and not in a VM of its own."""
    assert _said(flake, "asking").count("the variant's modules are evaluated") == 1


@pytest.mark.parametrize("backend", ["vm", "container"])
def test_a_home_is_evaluated_once(flake: Flake, backend: str) -> None:
    """The machine has its host's homes."""
    assert _said(flake, "at-home", backend).count("the home of alice is evaluated") == 1
    assert "home-manager" not in " ".join(flake.evaluate("at-home", backend=backend).changed)


@pytest.mark.parametrize(
    ("host", "changed"),
    [
        ("home-of-the-vm", 'systemd.units."home-manager-bob.service"'),
        ("home-in-the-variant", 'systemd.units."home-manager-alice.service".Service.Environment'),
    ],
)
def test_a_vm_with_homes_of_its_own_keeps_them(flake: Flake, host: str, changed: str) -> None:
    assert changed in flake.evaluate(host, backend="vm").changed


def _said(flake: Flake, host: str, backend: str = "vm") -> str:
    """Return what Nix prints on its standard error while it evaluates a host and its machine."""
    expression = evaluation_expression(
        host,
        backend=backend,
        instrumentation=Instrumentation(channel_script="s", snapshot=True),
        options=(),
    )
    argv = eval_argv(flake.nix.settings, flake.ref, "nixosConfigurations", expression)
    done = flake.nix.runner.run(argv, deadline=Deadline.after(300))
    assert done.exit_status == 0, done.stderr_text
    return done.stderr_text
