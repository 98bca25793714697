"""disko's own examples, evaluated with its real source and a real nixpkgs: what becomes of each.

``PYTEST_NIXOS_DISKO`` names a checkout of nix-community/disko and ``PYTEST_NIXOS_NIXPKGS`` a nixpkgs tree; nothing
is built or booted. Some 20 s a host.

With ``PYTEST_NIXOS_DISKS=1`` two of them are booted on the offline stand-in, which evaluates disko's own modules too; some
minutes each without KVM.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.support.nixpkgs_tree import NIXPKGS, OVERRIDES, PROGRAM, overlays

DISKO = os.environ.get("PYTEST_NIXOS_DISKO", "")
evaluates = pytest.mark.skipif(
    not (DISKO and NIXPKGS),
    reason="PYTEST_NIXOS_DISKO and PYTEST_NIXOS_NIXPKGS name disko's source and a nixpkgs",
)
boots = pytest.mark.skipif(
    not (DISKO and OVERRIDES and os.environ.get("PYTEST_NIXOS_DISKS")),
    reason="PYTEST_NIXOS_DISKO names disko's source, and PYTEST_NIXOS_DISKS=1 boots hosts of the stand-in",
)

FLAKE = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.05";
  inputs.disko = { url = "github:nix-community/disko"; flake = false; };
  outputs = { self, nixpkgs, disko }: let
    host = name: {
      inherit name;
      value = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          "${disko}/module.nix"
          (import "${disko}/example/${name}.nix")
          {
            networking.hostName = name;
            networking.hostId = "8425e349";
            @OVERLAYS@
            system.stateVersion = "24.05";
            boot.loader.systemd-boot.enable = true;
            boot.swraid.mdadmConf = "PROGRAM /bin/true";
          }
        ];
      };
    };
  in { nixosConfigurations = builtins.listToAttrs (map host [ @NAMES@ ]); };
}
"""
MADE = {
    "simple-efi": "vda: vfat, ext4; sizes are chosen",
    "btrfs-subvolumes": "vda: vfat, btrfs; sizes are chosen",
    "luks-btrfs-subvolumes": "vda: vfat, luks (btrfs); sizes are chosen",
    "luks-lvm": "vda: vfat, luks (lvm (ext4, ext4)); sizes are chosen",
    "lvm-thin": "vda: vfat, lvm (ext4, ext4); sizes are chosen; "
    "mainpool/home is no thin volume; mainpool/root is no thin volume",
    "gpt-bios-compat": "vda: unformatted, ext4; sizes are chosen",
    "hybrid": "vda: unformatted, vfat, ext4; sizes are chosen",
    "lvm-raid": "sda: member of /dev/md/boot, lvm (ext4, ext4); sdb: member of /dev/md/boot, more of pool; "
    "/dev/md/boot (raid1): vfat; sizes are chosen; pool/home is linear, not raid0; pool/root is linear, not mirror",
    "luks-on-mdadm": "sda: unformatted, member of /dev/md/boot, member of /dev/md/raid1; "
    "sdb: unformatted, member of /dev/md/boot, member of /dev/md/raid1; "
    "/dev/md/boot (raid1): vfat; /dev/md/raid1 (raid1): luks (ext4); sizes are chosen",
}
REFUSED = {
    "mdadm": "disko.devices.mdadm.raid1 has a partition table",
    "zfs": "disko.devices.zpool.zroot is zfs",
    "bcachefs": "disko.devices.disk.vdb.content.partitions.vdb2 is bcachefs",
    "complex": "disko.devices.zpool.zroot is zfs",
}


#: Of each example that is booted: where it mounts what, and what lies between that and the disk.
BOOTED = {
    "luks-btrfs-subvolumes": (
        {"/": "btrfs", "/home": "btrfs", "/nix": "btrfs", "/boot": "vfat"},
        ["crypt", "disk", "part"],
    ),
    "luks-lvm": (
        {"/": "ext4", "/home": "ext4", "/boot": "vfat"},
        ["crypt", "disk", "lvm", "part"],
    ),
}


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    folder = tmp_path_factory.mktemp("disko")
    names = " ".join(f'"{name}"' for name in (*MADE, *REFUSED))
    text = FLAKE.replace("@OVERLAYS@", f"nixpkgs.overlays = {overlays(NIXPKGS)};").replace(
        "@NAMES@", names
    )
    (folder / "flake.nix").write_text(text)
    trees = {"nixpkgs": NIXPKGS, "disko": DISKO}
    inputs = tuple((name, f"path:{Path(tree).resolve()}") for name, tree in trees.items())
    return Flake(
        FlakeRef(f"path:{folder}"),
        Nix(
            runner=SubprocessRunner(),
            settings=NixSettings(program=PROGRAM, override_inputs=inputs),
        ),
        Instrumentation(channel_script="the channel", own_disks=True),
    )


def evaluated(flake: Flake, host: str) -> HostConfig:
    return flake.evaluate(host, backend="vm")


@evaluates
@pytest.mark.parametrize("example", MADE)
def test_an_example_has_the_disks_that_disko_gives_it(flake: Flake, example: str) -> None:
    assert layout_of(evaluated(flake, example)).words == MADE[example]


@evaluates
@pytest.mark.parametrize("example", REFUSED)
def test_what_cannot_be_made_is_told(flake: Flake, example: str) -> None:
    with pytest.raises(MachineError, match=REFUSED[example]):
        layout_of(evaluated(flake, example))


@boots
@pytest.mark.parametrize("example", BOOTED)
def test_an_example_is_booted_from_the_disks_that_disko_declares(
    tmp_path: Path, example: str
) -> None:
    text = FLAKE.replace("@OVERLAYS@", "").replace("@NAMES@", f'"{example}"')
    (tmp_path / "flake.nix").write_text(text)
    mounts, layers = BOOTED[example]
    (tmp_path / "test_mounts.py").write_text(
        f"MOUNTS, LAYERS = {mounts!r}, {layers!r}\n"
        "def test_mounts(nixos_machine):\n"
        "    text = nixos_machine.run('findmnt --noheadings --raw --output TARGET,FSTYPE').stdout_text\n"
        "    found = dict(line.split()[:2] for line in text.splitlines())\n"
        "    assert {point: found.get(point) for point in MOUNTS} == MOUNTS\n"
        "    source = nixos_machine.run('findmnt --noheadings --nofsroot --output SOURCE /').stdout_text.strip()\n"
        "    below = nixos_machine.run(f'lsblk --noheadings --inverse --list --output TYPE {source}').stdout_text\n"
        "    assert sorted(below.split()) == LAYERS\n"
    )
    trees = {**OVERRIDES, "disko": f"path:{Path(DISKO).resolve()}"}
    inputs = [word for name, ref in trees.items() for word in ("--nixos-override-input", name, ref)]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("--nixos-flake", f"path:{tmp_path}#{example}", "--nixos-disks", "declared"),
            *inputs,
            str(tmp_path / "test_mounts.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-9000:] + ended.stderr[-3000:]
