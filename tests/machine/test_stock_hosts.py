"""The golden rule: a stock host of each kind has no false finding, and none without a remedy that works.

On a real nixpkgs (``PYTEST_NIXOS_NIXPKGS``) everything that the evaluated config decides is judged; nothing is built. What only a running
machine shows is judged on the example's container, for real.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.errors import EvalError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.machine.channel.protocol import guest_script
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.changes import changes
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.support.config_only import controls_of, evaluated, judged
from tests.support.nixpkgs_tree import overlays

NIXPKGS = os.environ.get("PYTEST_NIXOS_NIXPKGS", "")
PROGRAM = os.environ.get("PYTEST_NIXOS_NIX_PROGRAMS", "nix").split(":")[0]
on_nixpkgs = pytest.mark.skipif(
    not (NIXPKGS and shutil.which(PROGRAM)), reason="PYTEST_NIXOS_NIXPKGS names no nixpkgs tree"
)

STOCK = """
{
  inputs.nixpkgs.url = "path:@NIXPKGS@";
  outputs = { self, nixpkgs }: let
    metal = { lib, ... }: {
      fileSystems."/" = { device = "/dev/disk/by-uuid/44444444-4444-4444-8888-888888888888"; fsType = "ext4"; };
      fileSystems."/boot" = { device = "/dev/disk/by-uuid/4444-4444"; fsType = "vfat"; };
      boot.loader.systemd-boot.enable = true;
    };
    host = name: module: nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [
        module
        { networking.hostName = name; system.stateVersion = "24.05"; nixpkgs.overlays = @OVERLAYS@; }
      ];
    };
  in {
    nixosConfigurations = builtins.mapAttrs host {
      server = {
        imports = [ metal ];
        services.openssh.enable = true;
        services.fail2ban.enable = true;
        services.postgresql.enable = true;
      };
      desktop = {
        imports = [ metal ];
        services.xserver.enable = true;
        networking.networkmanager.enable = true;
        services.printing.enable = true;
        users.users.alice = { isNormalUser = true; extraGroups = [ "wheel" "networkmanager" ]; };
      };
      container = { boot.isContainer = true; services.openssh.enable = true; };
      lxc.imports = [ (nixpkgs + "/nixos/modules/virtualisation/proxmox-lxc.nix") ];
      # A VM already, as it is written.
      of-qemu = {
        imports = [ (nixpkgs + "/nixos/modules/virtualisation/qemu-vm.nix") ];
        services.openssh.enable = true;
      };
      # For WSL, which has the kernel of Windows.
      wsl = { boot.kernel.enable = false; boot.initrd.enable = false; boot.loader.grub.enable = false; boot.bootspec.enable = false; };
      # One that is not in order, so that this test can fail.
      careless = {
        imports = [ metal ];
        # Not as one text: a hash in the source is a finding of every host of the flake (SEC-016).
        users.users.bob = { isNormalUser = true; hashedPassword = builtins.concatStringsSep "$" [ "" "y" "j9T" "x" "y" ]; };
        swapDevices = [ { device = "/dev/disk/by-partlabel/swap"; } ];
        systemd.services.quiet = { enable = false; environment.KEY = throw "an option that nobody set"; };
      };
    };
  };
}
"""
KINDS = ("server", "desktop", "container", "lxc")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    text = STOCK.replace("@NIXPKGS@", str(Path(NIXPKGS).resolve()))
    (folder / "flake.nix").write_text(text.replace("@OVERLAYS@", overlays(NIXPKGS)))
    # Without a lock file each command would copy the whole tree again.
    subprocess.run(
        [PROGRAM, "--extra-experimental-features", "nix-command flakes", "flake", "lock", f"path:{folder}"],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def flake(source: Path) -> Flake:
    nix = Nix(runner=SubprocessRunner(), settings=NixSettings(program=PROGRAM))
    made = Instrumentation(channel_script=guest_script(), restrict_network=True, snapshot=True)
    return Flake(FlakeRef(f"path:{source}"), nix, made)


def findings(host: HostConfig, source: Path) -> dict[str, str]:
    """Return what the default profile says on the config alone: control to remedy."""
    found = list(judged(host, controls_of("baseline"), source))
    assert len(found) >= 10, "hardly anything was judged"
    return {one.verdict.control.id: one.remedy for one in found if one.failed}


@on_nixpkgs
@pytest.mark.parametrize("kind", KINDS)
def test_a_stock_host_has_no_finding(flake: Flake, source: Path, kind: str) -> None:
    host = evaluated(flake, kind, controls_of("baseline"))
    assert host.backend == ("container" if kind in ("container", "lxc") else "vm")
    assert host.unreadable == ()
    assert findings(host, source) == {}
    # NixOS's own services are nobody's to harden.
    assert host.own_services is not None
    assert not {"nscd.service", "fail2ban.service", "sshd.service"} & host.own_services
    told = changes(host.changed)
    assert len(told) <= 10
    if host.backend == "vm":
        names = [change.what for change in told]
        assert {"outside network", "boot loader"} <= set(names)
        assert "other options" not in names
        assert host.changed["documentation.nixos.enable"] == (True, False)


@on_nixpkgs
def test_a_host_that_imports_qemu_vm_gets_the_channel(flake: Flake) -> None:
    host = evaluated(flake, "of-qemu", controls_of("baseline"))
    made_of = subprocess.run(
        ["nix-store", "--query", "--requisites", host.derivation],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    assert "unit-pytest-nixos-channel.service" in made_of
    assert host.changed["virtualisation.graphics"] == (True, False)


@on_nixpkgs
def test_a_host_without_a_kernel_is_a_container(flake: Flake) -> None:
    assert evaluated(flake, "wsl", controls_of("baseline")).backend == "container"
    with pytest.raises(EvalError, match="no kernel or no initrd"):
        flake.evaluate("wsl", backend="vm")


@on_nixpkgs
def test_what_is_not_in_order_is_found_with_a_remedy(flake: Flake, source: Path) -> None:
    host = evaluated(flake, "careless", controls_of("baseline"))
    found = findings(host, source)
    assert {"AUTH-004", "MEM-014"} <= set(found)
    assert 'users.users."bob".hashedPasswordFile' in found["AUTH-004"]
    assert all(remedy.strip() for remedy in found.values())
    # A unit that is turned off keeps its place, whatever its text does.
    assert not host.units["quiet.service"].enabled
    assert host.unreadable == ()
