"""VMs with the disks that their hosts declare: evaluated by nixpkgs' own modules where
``PYTEST_NIXOS_NIXPKGS`` names a tree, else by those of the offline stand-in.

One with all kinds of layers and one with systemd in stage 1 are booted with the stand-in; ``PYTEST_NIXOS_DISKS=1`` boots the others too, about a
minute each without KVM.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixos.errors import EvalError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.missing import missing_in_machine
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.declared import InitrdSsh
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.support.nixpkgs_tree import NEEDS_NIXPKGS, NIXPKGS, OVERRIDES, PROGRAM, overlays

pytestmark = NEEDS_NIXPKGS
boots = pytest.mark.skipif(
    not os.environ.get("PYTEST_NIXOS_DISKS") or not OVERRIDES,
    reason="PYTEST_NIXOS_DISKS=1 boots hosts of the stand-in",
)

FLAKE = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.05";
  outputs = { self, nixpkgs }: let
    base = { @OVERLAYS@ system.stateVersion = "24.05"; boot.loader.grub.device = "/dev/vda"; };
    host = name: module: nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ base { networking.hostName = name; } module ];
    };
    hosts = {
      plain = {
        fileSystems."/" = { device = "/dev/disk/by-label/rootfs"; fsType = "ext4"; };
        fileSystems."/boot" = { device = "/dev/disk/by-uuid/12AB-34CD"; fsType = "vfat"; options = [ "umask=0077" ]; };
        fileSystems."/home" = {
          device = "/dev/disk/by-uuid/3f1d2a52-9c0c-4b5e-8f0a-111111111111";
          fsType = "ext4";
          options = [ "nosuid" "nodev" ];
        };
        fileSystems."/data" = { device = "/dev/nvme0n1p1"; fsType = "ext4"; };
        fileSystems."/srv" = { device = "nas:/srv"; fsType = "nfs"; };
        fileSystems."/mnt/usb" = { device = "/dev/disk/by-id/usb-x"; fsType = "ext4"; options = [ "nofail" ]; };
        swapDevices = [ { device = "/dev/disk/by-label/swap"; } ];
      };
      forgetful = {
        fileSystems."/" = { device = "none"; fsType = "tmpfs"; options = [ "size=1G" "mode=755" ]; };
        fileSystems."/persist" = { device = "/dev/vda2"; fsType = "ext4"; neededForBoot = true; };
        fileSystems."/boot" = { device = "/dev/vda1"; fsType = "vfat"; };
        fileSystems."/var/lib/data" = { device = "/persist/var/lib/data"; fsType = "none"; options = [ "bind" ]; };
      };
      encrypted = {
        boot.initrd.luks.devices.cryptroot.device = "/dev/disk/by-uuid/3f1d2a52-9c0c-4b5e-8f0a-222222222222";
        boot.initrd.luks.devices.data = { device = "/dev/disk/by-partlabel/data"; keyFile = "/keys/data"; };
        fileSystems."/" = { device = "/dev/mapper/cryptroot"; fsType = "ext4"; };
      };
      layers = {
        boot.swraid.enable = true;
        boot.swraid.mdadmConf = "ARRAY /dev/md/mirror UUID=11111111:22222222:33333333:44444444 name=any:mirror";
        boot.initrd.luks.devices.crypt.device = "/dev/disk/by-partlabel/crypt";
        environment.etc.crypttab.text = "vault UUID=3f1d2a52-9c0c-4b5e-8f0a-333333333333 /var/keys/vault luks";
        fileSystems."/" = { device = "/dev/disk/by-label/rootfs"; fsType = "btrfs"; options = [ "subvol=@" ]; };
        fileSystems."/home" = { device = "/dev/disk/by-label/rootfs"; fsType = "btrfs"; options = [ "subvol=@home" "nodev" ]; };
        fileSystems."/var/lib/db" = { device = "/dev/pool/db"; fsType = "xfs"; options = [ "noatime" ]; };
        fileSystems."/mirror" = { device = "/dev/md/mirror"; fsType = "ext4"; };
        fileSystems."/vault" = { device = "/dev/mapper/vault"; fsType = "ext4"; };
        swapDevices = [ { device = "/dev/pool/swap"; } ];
      };
      sealed = {
        boot.initrd.luks.devices.inner = { device = "/dev/pool/secret"; preLVM = false; };
        environment.etc.crypttab.text = "vault PARTLABEL=vault - tpm2-device=auto";
        fileSystems."/" = { device = "/dev/disk/by-partlabel/root"; fsType = "ext4"; };
        fileSystems."/secret" = { device = "/dev/mapper/inner"; fsType = "ext4"; };
        fileSystems."/vault" = { device = "/dev/mapper/vault"; fsType = "ext4"; };
      };
      remote = {
        boot.initrd.luks.devices.cryptroot.device = "/dev/disk/by-partlabel/root";
        boot.initrd.availableKernelModules = [ "virtio_net" ];
        boot.initrd.network.enable = true;
        boot.initrd.network.ssh = {
          enable = true;
          port = 2222;
          hostKeys = [ "/etc/secrets/initrd/ssh_host_ed25519_key" ];
          authorizedKeys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZMfk3QPfQJZMfk3QPfQJZMfk3QPfQJZMfk3QPfQJZM someone" ];
        };
        fileSystems."/" = { device = "/dev/mapper/cryptroot"; fsType = "ext4"; };
      };
      measured = {
        boot.initrd.systemd.enable = true;
        boot.initrd.luks.devices.cryptroot = {
          device = "/dev/disk/by-partlabel/root";
          crypttabExtraOpts = [ "tpm2-device=auto" "tpm2-pcrs=0+7" ];
        };
        security.tpm2.enable = true;
        fileSystems."/" = { device = "/dev/mapper/cryptroot"; fsType = "ext4"; };
      };
      by-systemd = {
        boot.initrd.systemd.enable = true;
        boot.initrd.luks.devices.cryptroot = {
          device = "/dev/disk/by-partlabel/root";
          crypttabExtraOpts = [ "tpm2-device=auto" "tpm2-pcrs=0+7" ];
        };
        boot.initrd.luks.devices.data.device = "/dev/disk/by-partlabel/data";
        fileSystems."/" = { device = "/dev/mapper/cryptroot"; fsType = "ext4"; };
        fileSystems."/data" = { device = "/dev/mapper/data"; fsType = "ext4"; };
      };
      stripes = {
        boot.swraid.enable = true;
        boot.swraid.mdadmConf = "ARRAY /dev/md/stripes level=raid5 num-devices=3 UUID=11111111:22222222:33333333:55555555 name=any:stripes";
        fileSystems."/" = { device = "/dev/disk/by-label/rootfs"; fsType = "ext4"; };
        fileSystems."/boot" = { device = "/dev/disk/by-label/BOOT"; fsType = "vfat"; options = [ "umask=0077" ]; };
        fileSystems."/stripes" = { device = "/dev/md/stripes"; fsType = "ext4"; };
        fileSystems."/spare" = { device = "/dev/sdc1"; fsType = "ext4"; };
      };
      loader = {
        fileSystems."/" = { device = "/dev/disk/by-label/rootfs"; fsType = "ext4"; };
        boot.loader.systemd-boot.enable = true;
        boot.loader.grub.enable = false;
        virtualisation.vmVariant.virtualisation.useBootLoader = true;
      };
      pool.fileSystems = {
        "/" = { device = "/dev/disk/by-label/rootfs"; fsType = "ext4"; };
        "/tank" = { device = "tank/data"; fsType = "zfs"; };
      };
    };
  in { nixosConfigurations = builtins.mapAttrs host hosts; };
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("disks")
    real = f"nixpkgs.overlays = {overlays(NIXPKGS)};" if NIXPKGS else ""
    (made / "flake.nix").write_text(FLAKE.replace("@OVERLAYS@", real))
    return made


def evaluated(folder: Path, host: str, *, own_disks: bool = True) -> HostConfig:
    inputs = {"nixpkgs": f"path:{Path(NIXPKGS).resolve()}"} if NIXPKGS else OVERRIDES
    settings = NixSettings(program=PROGRAM, override_inputs=tuple(inputs.items()))
    flake = Flake(
        FlakeRef(f"path:{folder}"),
        Nix(runner=SubprocessRunner(), settings=settings),
        Instrumentation(channel_script="the channel", own_disks=own_disks),
    )
    return flake.evaluate(host, backend="vm")


def test_the_vm_mounts_what_the_host_declares_beside_its_store(folder: Path) -> None:
    host = evaluated(folder, "plain")
    mounted = host.machine_file_systems or {}

    assert host.own_disks
    for point in ("/", "/boot", "/home", "/data"):
        assert mounted[point].device == host.file_systems[point].device
        assert set(host.file_systems[point].options) <= set(mounted[point].options)
    assert host.machine_swap_devices == ("/dev/disk/by-label/swap",)
    assert any(entry.device == "nix-store" for entry in mounted.values())
    assert missing_in_machine(host, machine="VM") == "/mnt/usb and /srv are not in the VM"


def test_an_image_with_a_boot_loader_and_the_hosts_own_disks_exclude_each_other(
    folder: Path,
) -> None:
    with pytest.raises(EvalError, match="starts from an image by a boot loader") as caught:
        evaluated(folder, "loader")

    assert "leave out --nixos-disks declared" in caught.value.remedy
    assert not evaluated(folder, "loader", own_disks=False).own_disks


def test_without_being_asked_for_the_vm_has_the_disk_of_build_vm(folder: Path) -> None:
    host = evaluated(folder, "plain", own_disks=False)

    assert not host.own_disks
    assert "/home" not in (host.machine_file_systems or {})


def test_luks_devices_stay_and_their_layout_follows_from_the_evaluated_host(folder: Path) -> None:
    host = evaluated(folder, "encrypted")

    assert missing_in_machine(host, machine="VM") == ""
    assert layout_of(host).words == "vda: luks (ext4), luks (empty); sizes are chosen"
    assert layout_of(host).key_files == ("/keys/data",)


def test_stage_1_that_takes_a_passphrase_over_the_network_is_known(folder: Path) -> None:
    host = evaluated(folder, "remote")

    assert host.initrd_ssh == InitrdSsh(
        port=2222, host_keys=("/etc/secrets/initrd/ssh_host_ed25519_key",), by_systemd=False
    )


@pytest.mark.skipif(not NIXPKGS, reason="the stand-in has no systemd in its initrd")
def test_a_vm_whose_stage_1_unlocks_by_tpm_has_one(folder: Path) -> None:
    host = evaluated(folder, "measured")

    assert host.machine_tpm
    assert layout_of(host).words == "vda: luks by TPM (ext4); sizes are chosen"
    assert "TPM" in host.snapshot_refusal or host.snapshot_refusal == "it was not asked for"
    assert not evaluated(folder, "measured", own_disks=False).machine_tpm


@boots
@pytest.mark.parametrize(
    ("host", "mounts"),
    [
        ("plain", {"/": "ext4", "/boot": "vfat", "/home": "ext4", "/data": "ext4"}),
        ("forgetful", {"/": "tmpfs", "/persist": "ext4", "/var/lib/data": "ext4"}),
        ("encrypted", {"/": "ext4"}),
    ],
)
def test_host_boots_from_its_own_disks_and_is_judged_on_them(
    folder: Path, tmp_path: Path, host: str, mounts: dict[str, str]
) -> None:
    (tmp_path / "test_mounts.py").write_text(
        f"MOUNTS = {mounts!r}\n"
        "def test_mounts(nixos_machine):\n"
        "    text = nixos_machine.run('findmnt --noheadings --raw --output TARGET,FSTYPE').stdout_text\n"
        "    found = dict(line.split()[:2] for line in text.splitlines())\n"
        "    assert {point: found.get(point) for point in MOUNTS} == MOUNTS\n"
        f"    open({str(tmp_path / 'right')!r}, 'w').close()\n"
    )
    report = tmp_path / "report.json"
    ran = _pytest(folder, host, report, str(tmp_path), "--nixos-suite", "filesystem", "--nixos-suite", "luks-tpm")  # fmt: skip
    outcomes = {f["control"]: f for f in json.loads(report.read_text())["findings"]}

    assert (tmp_path / "right").exists(), ran
    assert outcomes["FS-016"]["outcome"] == "passed", ran[-6000:]
    assert outcomes["FS-016"]["judged_on"] == "machine"
    if host == "encrypted":
        assert outcomes["LUKS-001"]["outcome"] == "passed", outcomes["LUKS-001"]
        assert outcomes["LUKS-002"]["outcome"] == "not-applicable"
    if host == "forgetful":
        assert outcomes["FS-023"]["outcome"] == "passed", outcomes["FS-023"]


@pytest.mark.skipif(not OVERRIDES, reason="the stand-in is booted")
def test_layers_of_every_kind_are_booted_and_survive_what_befalls_disks(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copy(Path(__file__).parent / "on_guest" / "guest_layers.py", tmp_path / "test_layers.py")
    report = tmp_path / "report.json"
    ran = _pytest(folder, "layers", report, str(tmp_path), "--nixos-suite", "luks-tpm", "-k", "layers and (test_layers or LUKS-001)")  # fmt: skip
    findings = json.loads(report.read_text())["findings"]

    assert [(f["outcome"], f["judged_on"]) for f in findings if f["control"] == "LUKS-001"] == [
        # The mirror and the root are not encrypted.
        ("failed", "both")
    ], ran[-9000:]
    assert "3 passed" in ran, ran[-9000:]


@pytest.mark.skipif(not OVERRIDES, reason="the stand-in is booted")
def test_systemd_in_stage_1_unlocks_what_is_made_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "test_mounts.py").write_text(
        "def test_mounts(nixos_machine):\n"
        "    text = nixos_machine.run('findmnt --noheadings --raw --output TARGET,SOURCE').stdout_text\n"
        "    found = dict(line.split()[:2] for line in text.splitlines())\n"
        "    assert (found['/'], found['/data']) == ('/dev/mapper/cryptroot', '/dev/mapper/data')\n"
    )
    report = tmp_path / "report.json"
    ran = _pytest(folder, "by-systemd", report, str(tmp_path), "--nixos-suite", "luks-tpm", "-k", "test_mounts or LUKS-001")  # fmt: skip

    [sealed] = json.loads(report.read_text())["findings"]
    assert (sealed["control"], sealed["outcome"]) == ("LUKS-001", "passed"), ran[-9000:]
    assert "2 passed" in ran, ran[-9000:]


@boots
def test_a_tpm_unlocks_until_a_pcr_has_another_value(folder: Path, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "on_guest" / "guest_sealed.py", tmp_path / "test_sealed.py")
    ran = _pytest(folder, "sealed", tmp_path / "report.json", str(tmp_path))

    assert "1 passed" in ran, ran[-9000:]


@boots
def test_stage_1_is_unlocked_over_the_network(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "test_remote.py").write_text(
        "def test_remote(nixos_machine):\n"
        "    assert nixos_machine.run('findmnt --noheadings --output SOURCE /').stdout_text.strip() == '/dev/mapper/cryptroot'\n"
    )
    ran = _pytest(folder, "remote", tmp_path / "report.json", str(tmp_path))

    assert "unlocked over the network, by ssh to port 2222 of stage 1" in ran, ran[-9000:]
    assert "but at the console" not in ran
    assert "1 passed" in ran, ran[-9000:]


@boots
def test_an_array_of_three_and_a_failing_disk_and_lost_power_are_survived_or_told(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copy(Path(__file__).parent / "on_guest" / "guest_trouble.py", tmp_path / "test_trouble.py")  # fmt: skip
    report = tmp_path / "report.json"
    ran = _pytest(folder, "stripes", report, str(tmp_path), "--nixos-suite", "filesystem", "-k", "test_trouble or FS-024")  # fmt: skip
    [array] = json.loads(report.read_text())["findings"]

    # Before anything befalls it.
    assert (array["control"], array["outcome"]) == ("FS-024", "passed"), array
    assert "7 passed" in ran, ran[-9000:]


@boots
def test_disks_that_cannot_be_made_are_told_before_anything_is_built(
    folder: Path, tmp_path: Path
) -> None:
    ran = _pytest(folder, "pool", tmp_path / "report.json", "--nixos-suite", "filesystem")

    assert 'its own disks cannot be made: fileSystems."/tank" is zfs' in ran
    assert "built" not in ran


def _pytest(folder: Path, host: str, report: Path, *arguments: str) -> str:
    inputs = [
        word for name, ref in OVERRIDES.items() for word in ("--nixos-override-input", name, ref)
    ]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("--nixos-flake", f"path:{folder}#{host}", "--nixos-disks", "declared"),
            *("--nixos-profile", "hardened", "--nixos-report", f"json:{report}"),
            *inputs,
            *arguments,
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.stdout + ended.stderr
