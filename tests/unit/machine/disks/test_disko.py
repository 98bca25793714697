"""Disks as disko declares them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.disks.script import making_script
from pytest_nixos.nix.config.declared import FileSystem, LuksDevice
from pytest_nixos.nix.config.host_facts import HostConfig
from tests.unit.standards.samples import host_config

Json = dict[str, Any]
_NOTHING: Json = {
    **dict.fromkeys(("device", "name", "vg", "pool", "format", "mountpoint", "filesystem"), ""),
    "extraArgs": [],
    "randomEncryption": False,
    "subvolumes": [],
    "partitions": [],
    "content": None,
}


def content(kind: str, **given: object) -> Json:
    return {**_NOTHING, "type": kind, **given}


def partition(name: str, inner: Json | None, code: str = "8300", label: str = "") -> Json:
    label = label or f"disk-main-{name}"
    return {
        "name": name,
        "label": label,
        "device": f"/dev/disk/by-partlabel/{label}",
        "uuid": "",
        "type": code,
        "size": "",
        "priority": 1000,
        "content": inner,
    }


def disk(name: str, device: str, *partitions: Json) -> Json:
    table = content("gpt", partitions=list(partitions))
    return {"name": name, "device": device, "content": table}


def host(*disks: Json, systems: tuple[FileSystem, ...] = (), **more: object) -> HostConfig:
    tree = {"disks": list(disks), "arrays": [], "groups": [], "pools": [], **more}
    made = host_config(file_systems={s.mount_point: s for s in systems})
    return replace(made, disko=tree)


def test_partitions_lie_in_order_with_their_types_and_labels_mounted_or_not() -> None:
    root = FileSystem(
        mount_point="/",
        device="/dev/disk/by-partlabel/disk-main-root",
        fs_type="btrfs",
        options=("subvol=root",),
    )
    made = host(
        disk(
            "main",
            "/dev/disk/by-id/ata-x",
            partition("bios", None, "EF02"),
            partition("ESP", content("filesystem", format="vfat"), "EF00"),
            partition(
                "root", content("btrfs", subvolumes=["/root", "/snapshots"], extraArgs=["-L nixos"])
            ),
        ),
        systems=(root,),
    )
    (only,) = layout_of(made).disks
    script = making_script(layout_of(made))

    assert [(p.number, p.name, p.volume.kind) for p in only.partitions] == [
        (1, "disk-main-bios", "nothing"),
        (2, "disk-main-ESP", "vfat"),
        (3, "disk-main-root", "btrfs"),
    ]
    assert 'type=21686148-6449-6E6F-744E-656564454649, name="disk-main-bios"' in script
    assert 'type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="disk-main-ESP"' in script
    assert only.partitions[2].volume.subvolumes == ("root", "snapshots")
    assert "mkfs.btrfs -q -f -L nixos /dev/vda3" in script
    assert "await /dev/vda1\nawait /dev/vda2" in script, "nothing is made of what has no content"


def test_luks_and_lvm_lie_as_in_the_tree_and_luks_is_there_though_nothing_opens_it() -> None:
    volume = {
        "name": "root",
        "lvm_type": "",
        "pool": "",
        "content": content("filesystem", format="xfs"),
    }
    crypted = content("luks", name="crypted", content=content("lvm_pv", vg="pool"))
    made = replace(
        host(
            disk("main", "/dev/nvme0n1", partition("luks", crypted)),
            groups=[{"name": "pool", "volumes": [volume]}],
        ),
        luks={
            "crypted": LuksDevice(name="crypted", device="/dev/disk/by-partlabel/disk-main-luks")
        },
    )

    assert layout_of(made).words == "nvme0n1: luks (lvm (xfs)); sizes are chosen"
    assert layout_of(replace(made, luks={})) == layout_of(made)


def test_an_array_has_the_members_that_the_tree_gives_it() -> None:
    member = content("mdraid", name="boot")
    made = host(
        disk("one", "/dev/disk/by-id/a", partition("m", member, "FD00", "disk-one-m")),
        disk("two", "/dev/disk/by-id/b", partition("m", member, "FD00", "disk-two-m")),
        arrays=[
            {
                "name": "boot",
                "level": "1",
                "metadata": "1.0",
                "content": content("filesystem", format="vfat"),
            }
        ],
    )
    script = making_script(layout_of(made))

    assert "mdadm --create /dev/md/boot" in script
    assert (
        "--level=raid1 --metadata=1.0 --homehost=any --name=boot --raid-devices=2 /dev/vda1 /dev/sda1"
        in script
    )
    assert "mkfs.vfat /dev/md/boot" in script


def test_a_group_on_two_disks_is_extended_to_the_second() -> None:
    physical = content("lvm_pv", vg="pool")
    volumes = [
        {
            "name": "root",
            "lvm_type": "raid1",
            "pool": "",
            "content": content("filesystem", format="ext4"),
        },
        {"name": "thin", "lvm_type": "thin-pool", "pool": "", "content": None},
    ]
    made = host(
        disk("one", "/dev/disk/by-id/a", partition("pv", physical, label="disk-one-pv")),
        disk("two", "/dev/disk/by-id/b", partition("pv", physical, label="disk-two-pv")),
        groups=[{"name": "pool", "volumes": volumes}],
    )
    script = making_script(layout_of(made))

    assert script.index("lvm pvcreate --force --force --yes /dev/sda1") < script.index(
        "lvm vgextend pool /dev/sda1"
    )
    assert "pool/root is linear, not raid1" in layout_of(made).words


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (host(pools=["zroot"]), "disko.devices.zpool.zroot is zfs"),
        (
            host(
                disk("main", "/dev/vda", partition("r", content("filesystem", format="bcachefs")))
            ),
            r"disko.devices.disk.main.content.partitions.r is bcachefs",
        ),
        (
            host({"name": "main", "device": "/dev/vda", "content": content("table")}),
            "disko.devices.disk.main has an MBR",
        ),
        (
            host({"name": "d", "device": "/dev/disk/by-id/x", "content": content("swap")}),
            "holds swap without partitions",
        ),
        (
            host(arrays=[{"name": "md", "level": "1", "metadata": "", "content": None}]),
            "disko.devices.mdadm.md has no members",
        ),
        (
            host(
                disk(
                    "main",
                    "/dev/vda",
                    partition("r", content("btrfs", extraArgs=["-d raid1", "/dev/mapper/p2"])),
                )
            ),
            r"is btrfs on several devices \(/dev/mapper/p2\)",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_with_its_place_in_the_tree(
    made: HostConfig, told: str
) -> None:
    with pytest.raises(MachineError, match=told):
        layout_of(made)
