"""Arrays of mdraid: what mdadm.conf says of them, where their members lie, how they are made."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.disks.arrays import DeclaredArray, arrays_of, undeclared_array
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.disks.script import making_script
from pytest_nixos.nix.config.declared import FileSystem, LuksDevice, SoftwareRaid
from pytest_nixos.nix.config.host_facts import HostConfig
from tests.unit.standards.samples import host_config


def host(device: str, conf: str = "", *, enable: bool = True, **changes: object) -> HostConfig:
    root = FileSystem(mount_point="/", device=device, fs_type="ext4", options=())
    made = host_config(file_systems={"/": root}, swraid=SoftwareRaid(enable=enable, conf=conf))
    return replace(made, **changes)


def test_lines_of_mdadm_conf_go_on_where_a_line_begins_with_a_blank() -> None:
    conf = """# ARRAY /dev/md9
MAILADDR root
ARRAY /dev/md0 metadata=1.0 level=5 num-devices=3
   UUID=1:2:3:4 name=nixos:0
array md/boot devices=/dev/sda1,/dev/sdb1  # the loader's
ARRAY <ignore> UUID=5:6:7:8
"""

    assert arrays_of(conf) == (
        DeclaredArray(
            device="/dev/md0",
            name="nixos:0",
            uuid="1:2:3:4",
            level="raid5",
            metadata="1.0",
            count=3,
        ),
        DeclaredArray(device="/dev/md/boot", members=("/dev/sda1", "/dev/sdb1")),
    )


@pytest.mark.parametrize(
    ("device", "name"),
    [("/dev/md0", "0"), ("/dev/md/root", "root"), ("/dev/disk/by-id/md-name-any:boot", "any:boot")],
)
def test_a_path_alone_names_a_mirror(device: str, name: str) -> None:
    assert undeclared_array(device) == DeclaredArray(device=device, name=name)
    assert undeclared_array("/dev/mdx/root") is None


def test_members_lie_on_disks_of_their_own_and_the_array_is_stopped_again() -> None:
    made = host("/dev/md0", "ARRAY /dev/md0 UUID=1:2:3:4 name=nixos:0 level=raid5 num-devices=3")
    layout, script = layout_of(made), making_script(layout_of(made))

    assert layout.words == (
        "vda: member of /dev/md0; sda: member of /dev/md0; sdb: member of /dev/md0; "
        "/dev/md0 (raid5): ext4; sizes are chosen"
    )
    assert "--level=raid5 --metadata=1.2 --homehost=nixos --name=0 --uuid 1:2:3:4 " in script
    assert "--raid-devices=3 /dev/vda1 /dev/sda1 /dev/sdb1" in script
    assert script.index("mdadm --create /dev/md0") < script.index("mke2fs -q -F -t ext4 /dev/md0")
    assert script.index("mke2fs") < script.index("mdadm --stop /dev/md0")
    assert "type=raid" in script


def test_members_that_are_named_are_those() -> None:
    made = host("/dev/md/root", "ARRAY /dev/md/root devices=/dev/sda1,/dev/sdb1")

    assert [disk.name for disk in layout_of(made).disks] == ["sda", "sdb"]
    assert "--homehost=any --name=root" in making_script(layout_of(made))


def test_a_member_has_room_for_all_that_the_array_holds() -> None:
    made = host(
        "/dev/mapper/crypt", luks={"crypt": LuksDevice(name="crypt", device="/dev/md/crypt")}
    )
    (array,) = layout_of(made).arrays
    member = layout_of(made).disks[0].partitions[0].volume

    assert (array.volume.kind, array.volume.inside[""].kind) == ("luks", "ext4")
    assert member.size_mib > array.volume.size_mib
    script = making_script(layout_of(made))
    assert script.index("cryptsetup close crypt") < script.index("mdadm --stop /dev/md/crypt")


@pytest.mark.parametrize(
    ("made", "told", "remedy"),
    [
        (host("/dev/md0", enable=False), "boot.swraid.enable is off", "boot.swraid.enable = true"),
        (
            host("/dev/md0", "ARRAY /dev/md0 level=raid6 num-devices=3"),
            "/dev/md0 has 3 members; raid6 needs 4",
            "boot.swraid.mdadmConf",
        ),
        (host("/dev/md0", "ARRAY /dev/md0 level=faulty"), "has the level faulty", "default"),
        (
            host("/dev/md0", "ARRAY /dev/md0 devices=/dev/disk/by-id/ata-x,/dev/sdb1"),
            "the array /dev/md0 names /dev/disk/by-id/ata-x",
            "--nixos-disks default",
        ),
    ],
)
def test_an_array_that_cannot_be_is_refused_before_anything_boots(
    made: HostConfig, told: str, remedy: str
) -> None:
    with pytest.raises(MachineError, match=told) as caught:
        layout_of(made)
    assert remedy in caught.value.remedy
