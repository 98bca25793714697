"""Which disks a host needs, and the script that makes them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.disks.script import TEST_KEY, making_script
from pytest_nixos.machine.disks.volumes import Disk, Partition, Volume
from pytest_nixos.nix.config.declared import FileSystem, LuksDevice, SwapDevice
from pytest_nixos.nix.config.host_facts import HostConfig
from tests.unit.standards.samples import host_config

UUID = "3f1d2a52-9c0c-4b5e-8f0a-111111111111"


def fs(point: str, device: str, kind: str = "ext4", *options: str) -> FileSystem:
    return FileSystem(mount_point=point, device=device, fs_type=kind, options=options)


ROOT = fs("/", "/dev/disk/by-label/root")


def host(*systems: FileSystem, **changes: object) -> HostConfig:
    made = host_config(file_systems={s.mount_point: s for s in systems})
    return replace(made, **changes)


def volumes(made: HostConfig) -> list[Volume]:
    (disk,) = layout_of(made).disks
    return [partition.volume for partition in disk.partitions]


def test_each_file_system_and_swap_has_a_partition_with_the_label_or_uuid_that_names_it() -> None:
    made = host(
        ROOT,
        fs("/boot", "/dev/disk/by-uuid/12AB-34CD", "vfat"),
        fs("/srv", "/dev/disk/by-partlabel/srv", "xfs"),
        swap=(SwapDevice(device="/dev/disk/by-label/a\\x20swap"),),
    )
    script = making_script(layout_of(made))

    assert layout_of(made).disks[0].partitions[2] == Partition(
        number=3, volume=Volume(kind="xfs"), name="srv"
    )
    assert "mke2fs -q -F -t ext4 -L root /dev/vda1" in script
    assert "mkfs.vfat -i 12AB34CD /dev/vda2" in script
    assert "mkswap -L 'a swap' /dev/vda4" in script
    assert '3 : size=2048MiB, type=linux, name="srv"' in script


def test_a_path_says_disk_and_number_and_the_rest_goes_where_nothing_is_yet() -> None:
    made = host(
        fs("/", "/dev/vda2"),
        fs("/a", "/dev/disk/by-label/a"),
        fs("/b", "/dev/nvme0n1p3"),
        fs("/c", "/dev/sda"),
        fs("/d", "/dev/disk/by-label/d"),
    )
    layout = layout_of(made)

    assert [disk.name for disk in layout.disks] == ["vda", "sda", "nvme0n1"]
    assert [(p.number, p.volume.label) for p in layout.disks[0].partitions] == [
        (1, "a"),
        (2, ""),
        (3, "d"),
    ]
    assert layout.disks[2].partition_device(3) == "/dev/nvme0n1p3"
    assert "await /dev/nvme0n1\nsfdisk" in making_script(layout)
    assert layout.disks[1] == Disk(name="sda", whole=Volume(kind="ext4"))


def test_the_kernel_counts_disks_so_that_those_before_a_named_one_are_there_too() -> None:
    layout = layout_of(host(fs("/", "/dev/sdc1")))

    assert [disk.name for disk in layout.disks] == ["sda", "sdb", "sdc"]
    assert layout.words == "sda: empty; sdb: empty; sdc: ext4; sizes are chosen"
    assert "dd if=/dev/sdc" in making_script(layout), (
        "the first disk that holds something is marked"
    )


def test_subvolumes_of_one_file_system_are_made_once() -> None:
    device = f"/dev/disk/by-uuid/{UUID}"
    made = host(
        fs("/", device, "btrfs", "subvol=@", "compress=zstd"),
        fs("/home", device, "btrfs", "subvol=/@home"),
        fs("/nix", device, "btrfs", "subvol=deep/@nix"),
    )
    script = making_script(layout_of(made))

    assert volumes(made) == [
        Volume(kind="btrfs", uuid=UUID, subvolumes=("@", "@home", "deep/@nix"))
    ]
    assert script.count("mkfs.btrfs") == 1
    assert script.index("mkdir -p /plan/made/deep") < script.index(
        "btrfs subvolume create /plan/made/deep/@nix"
    )


def test_luks_is_opened_by_the_test_key_and_closed_again() -> None:
    made = host(
        fs("/", "/dev/mapper/crypt"),
        luks={"crypt": LuksDevice(name="crypt", device=f"/dev/disk/by-uuid/{UUID}")},
    )
    script = making_script(layout_of(made))

    assert volumes(made) == [
        Volume(kind="luks", uuid=UUID, name="crypt", inside={"": Volume(kind="ext4")})
    ]
    assert f"--uuid {UUID} /dev/vda1 -" in script
    assert f"printf %s {TEST_KEY} | cryptsetup open --key-file - /dev/vda1 crypt" in script
    assert script.index("mke2fs -q -F -t ext4 /dev/mapper/crypt") < script.index(
        "cryptsetup close crypt"
    )


def test_volumes_of_a_group_lie_on_the_luks_device_that_nothing_mounts() -> None:
    made = host(
        fs("/", "/dev/pool/root"),
        fs("/var/lib/a-b", "/dev/mapper/pool-a--b"),
        luks={"crypt": LuksDevice(name="crypt", device="/dev/disk/by-partlabel/crypt")},
        swap=(SwapDevice(device="/dev/pool/swap"),),
    )
    (outer,) = volumes(made)

    assert (outer.kind, outer.inside[""].kind, outer.inside[""].name) == ("luks", "lvm", "pool")
    assert {n: v.kind for n, v in outer.inside[""].inside.items()} == {
        "root": "ext4",
        "a-b": "ext4",
        "swap": "swap",
    }
    script = making_script(layout_of(made))
    assert script.index("vgchange -an pool") < script.index("cryptsetup close crypt")


def test_luks_on_a_logical_volume_lies_in_its_group_and_is_closed_before_it() -> None:
    made = host(
        ROOT,
        fs("/secret", "/dev/mapper/inner", "xfs"),
        fs("/plain", "/dev/pool/plain"),
        luks={"inner": LuksDevice(name="inner", device="/dev/mapper/pool-secret--data")},
    )
    root, group = volumes(made)
    script = making_script(layout_of(made))

    assert (root.kind, group.kind, group.name) == ("ext4", "lvm", "pool")
    assert group.inside["secret-data"] == Volume(
        kind="luks", name="inner", inside={"": Volume(kind="xfs")}
    )
    assert group.inside["plain"].kind == "ext4"
    steps = [
        "lvm lvcreate",
        "cryptsetup luksFormat --batch-mode",
        "cryptsetup open --key-file - /dev/pool/secret-data inner",
        "mkfs.xfs -q -f /dev/mapper/inner",
        "cryptsetup close inner",
        "lvm vgchange -an pool",
    ]
    assert [script.index(step) for step in steps] == sorted(script.index(step) for step in steps)


def test_luks_that_clevis_unlocks_is_told_to_take_a_passphrase() -> None:
    made = host(
        fs("/", "/dev/mapper/crypt"),
        luks={
            "crypt": LuksDevice(
                name="crypt", device="/dev/vda1", key_file="/clevis-crypt/decrypted"
            )
        },
    )
    layout = layout_of(made)

    assert layout.key_files == ()
    assert layout.words == (
        "vda: luks (ext4); sizes are chosen; crypt is unlocked by a passphrase, not by clevis"
    )


def test_what_is_bound_has_its_source_and_stage_1_its_key_file() -> None:
    made = host(
        fs("/", "tmpfs", "tmpfs"),
        fs("/persist", "/dev/disk/by-label/persist", "btrfs", "subvol=keep"),
        fs("/var/lib", "/persist/var/lib", "none", "bind"),
        luks={
            "data": LuksDevice(name="data", device="/dev/sda1", key_file="/keys/it's data"),
        },
    )
    script = making_script(layout_of(made))

    assert "mount -o subvol=keep LABEL=persist /plan/made\nmkdir -p /plan/made/var/lib" in script
    assert f"printf %s {TEST_KEY} > '/plan/stage-1/keys/it'\"'\"'s data'" in script


def test_other_machines_disks_are_left_out_and_what_may_be_absent_is_told() -> None:
    made = host(
        ROOT,
        fs("/srv", "nas:/srv", "nfs"),
        fs("/usb", "/dev/disk/by-id/usb-x", "ext4", "nofail"),
    )
    layout = layout_of(made)

    assert len(layout.disks[0].partitions) == 1
    assert layout.absent == ("/usb",)
    assert layout.words == "vda: ext4; sizes are chosen; without /usb"


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (host(ROOT, fs("/data", "tank/data", "zfs")), r'fileSystems."/data" is zfs'),
        (
            host(ROOT, fs("/data", "/dev/disk/by-id/ata-x")),
            'fileSystems."/data" names /dev/disk/by-id/ata-x',
        ),
        (host(ROOT, fs("/data", "/dev/mapper/data")), "names /dev/mapper/data"),
        (
            host(ROOT, swap=(SwapDevice(device="/dev/disk/by-label/root"),)),
            "/dev/disk/by-label/root is ext4 and, by swapDevices, swap",
        ),
        (
            host(
                fs("/", "/dev/mapper/c"),
                luks={"c": LuksDevice(name="c", device="/dev/vda1", key_file="/dev/sdb")},
            ),
            "unlocked by /dev/sdb, a device that the VM lacks",
        ),
        (
            host(
                fs("/", "/dev/mapper/a"),
                luks={
                    "a": LuksDevice(name="a", device="/dev/mapper/b"),
                    "b": LuksDevice(name="b", device="/dev/mapper/a"),
                },
            ),
            "LUKS devices lie on each other",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_entry_that_asks_for_it(
    made: HostConfig, told: str
) -> None:
    with pytest.raises(MachineError, match=told) as caught:
        layout_of(made)
    assert "--nixos-disks default" in caught.value.remedy


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_script_is_one_that_bash_takes() -> None:
    made = host(
        fs("/", "/dev/pool/root"),
        fs("/a", "/dev/disk/by-label/it's", "btrfs", "subvol=a b"),
        fs("/bound", "/a/x y", "none", "bind"),
        luks={"crypt": LuksDevice(name="crypt", device="/dev/sdb1", key_file="/k")},
        swap=(SwapDevice(device="/swap/file"),),
    )
    for layout in (layout_of(made), layout_of(host(fs("/", "tmpfs", "tmpfs")))):
        read = subprocess.run(
            ["bash", "-n"], input=making_script(layout), text=True, capture_output=True, check=False
        )
        assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash")
def test_the_command_that_fails_is_told(tmp_path: Path) -> None:
    for name, text in {"sfdisk": "exit 1", "dd": ":", "head": "cat", "tr": "cat"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    ran = subprocess.run(
        ["bash"],
        input=making_script(layout_of(host(ROOT))).replace("await /dev/vda\n", ""),
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert ran.returncode != 0
    assert "pytest-nixos: failed: sfdisk --quiet --wipe always /dev/vda" in ran.stdout
