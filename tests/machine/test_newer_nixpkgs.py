"""What newer nixpkgs does, simulated on the stand-in: options that it declares, and what the
plugin makes of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake

OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")

# 26.11: shares by virtiofs, which needs shared guest memory. The option and what it does to QEMU
# stand in qemu-vm.nix.
HOSTS = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations =
      let
        virtiofs = { config, lib, ... }: {
          options.virtualisation.qemu.enableSharedMemory = lib.mkOption { type = lib.types.bool; default = true; };
          config.virtualisation.qemu.options = lib.mkIf config.virtualisation.qemu.enableSharedMemory
            [ "-object memory-backend-memfd,id=mem,size=512M,share=on" "-machine memory-backend=mem" ];
        };
        host = more: nixpkgs.lib.nixosSystem {
          system = "x86_64-linux";
          modules = [ { virtualisation.vmVariant.imports = [ virtiofs ]; networking.hostName = "new"; } more ];
        };
      in
      {
        plain = host { };
        sharing = host { virtualisation.vmVariant.virtualisation.sharedDirectories.data = { source = "/srv"; target = "/srv"; }; };
        container = host { boot.isContainer = true; };
      };
  };
}
"""


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> FlakeRef:
    folder = tmp_path_factory.mktemp("new")
    (folder / "flake.nix").write_text(HOSTS)
    return FlakeRef(f"path:{folder}")


def opened(ref: FlakeRef, *, snapshot: bool) -> Flake:
    nix = Nix(
        runner=SubprocessRunner(), settings=NixSettings(override_inputs=tuple(OVERRIDES.items()))
    )
    return Flake(ref, nix, Instrumentation(channel_script="s", snapshot=snapshot))


def evaluate(
    flake: FlakeRef, host: str, *, snapshot: bool, options: tuple[str, ...] = ()
) -> HostConfig:
    return opened(flake, snapshot=snapshot).evaluate(host, option_paths=options)


def run_script(flake: FlakeRef, host: str, *, snapshot: bool, tmp_path: Path) -> str:
    whole = opened(flake, snapshot=snapshot)
    config = whole.evaluate(host)
    built = whole.build(config, gc_root=tmp_path / "root")
    return (built / config.program).read_text()


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_host_without_shares_needs_no_virtiofs(
    flake: FlakeRef, tmp_path: Path, snapshot: bool
) -> None:
    config = evaluate(flake, "plain", snapshot=snapshot)
    assert config.snapshot_refusal == ("" if snapshot else "it was not asked for")
    assert config.changed["virtualisation.qemu.enableSharedMemory"] == (True, False)
    assert config.changed["virtualisation.useNixStoreImage"] == (False, True)
    script = run_script(flake, "plain", snapshot=snapshot, tmp_path=tmp_path)
    assert "memory-backend" not in script
    assert "store.img" in script


def test_a_host_that_shares_a_directory_keeps_what_that_needs(
    flake: FlakeRef, tmp_path: Path
) -> None:
    config = evaluate(flake, "sharing", snapshot=True)
    assert "mounts a share" in config.snapshot_refusal
    assert "virtualisation.qemu.enableSharedMemory" not in config.changed
    assert "memory-backend-memfd" in run_script(flake, "sharing", snapshot=True, tmp_path=tmp_path)


def test_a_container_is_one_of_nspawn_where_that_is_told_apart(flake: FlakeRef) -> None:
    option = "boot.isNspawnContainer"
    config = evaluate(flake, "container", snapshot=False, options=(option,))
    assert config.backend == "container"
    assert config.changed[option] == (False, True)


def test_an_option_that_was_removed_is_absent(flake: FlakeRef) -> None:
    """Its definition throws: what reads it would count as unreadable."""
    removed, there = "services.ollama.listenAddress", "services.ollama.host"
    config = evaluate(flake, "plain", snapshot=False, options=(removed, there))
    assert config.option(removed).state == "absent"
    assert config.option(there).state == "present"
