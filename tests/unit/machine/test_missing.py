"""What a host's machine lacks, told before the boot."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pytest_nixos.machine.missing import missing_in_machine
from pytest_nixos.nix.config.declared import FileSystem
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit
from tests.unit.standards.samples import host_config


def fs(point: str, device: str, kind: str = "ext4", *options: str) -> FileSystem:
    return FileSystem(mount_point=point, device=device, fs_type=kind, options=options)


def unit(name: str, section: str, key: str, value: str) -> Unit:
    return Unit(name=name, enabled=True, settings={section: {key: (value,)}}, wanted_by=())


ROOT = fs("/", "/dev/disk/by-label/root")


def host(*systems: FileSystem, units: tuple[Unit, ...] = (), **changes: object) -> HostConfig:
    made = host_config(
        file_systems={s.mount_point: s for s in (ROOT, *systems)},
        units={u.name: u for u in units},
        machine_file_systems={"/": fs("/", "/dev/vda"), "/nix/.ro-store": fs("x", "y", "9p")},
        machine_swap_devices=(),
    )
    return replace(made, **changes)


def test_a_data_disk_a_swap_file_and_the_service_that_wants_them() -> None:
    made = host(
        fs("/data", "/dev/disk/by-label/data"),
        fs("/boot", "/dev/disk/by-label/ESP", "vfat"),
        units=(
            unit("archive.service", "Unit", "RequiresMountsFor", "/data"),
            unit("other.service", "Service", "ExecStart", "/bin/x /database /var/data"),
        ),
        swap_devices=("/var/swapfile",),
    )

    assert missing_in_machine(made, machine="VM") == (
        "/data and a swap file are not in the VM; archive.service runs on the root disk"
    )


def test_one_thing_is_told_in_the_singular_and_many_are_counted() -> None:
    one = host(fs("/data", "/dev/disk/by-label/data"))
    assert missing_in_machine(one, machine="VM") == "/data is not in the VM"

    many = host(*(fs(f"/d{n}", f"/dev/disk/by-id/d{n}") for n in range(6)))
    assert missing_in_machine(many, machine="VM") == "/d0, /d1, /d2 and 3 more are not in the VM"


def test_impermanence_without_its_disk_is_one_part_of_the_line() -> None:
    made = host(
        fs("/persist", "/dev/mapper/crypt", "btrfs"),
        fs("/etc/nixos", "/persist/etc/nixos", "none", "bind"),
        fs("/var/lib", "/persist/var/lib", "none", "bind"),
        units=(unit("db.service", "Service", "WorkingDirectory", "/var/lib/db"),),
        luks_devices=("crypt",),
    )
    assert missing_in_machine(made, machine="VM") == (
        "/persist, 2 bind mounts of /persist and a LUKS device (crypt) are not in the VM; "
        "db.service runs on the root disk"
    )


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("zfs rollback -r rpool/local/root@blank", "rpool/local/root"),
        ("zpool import -f -N tank", "tank"),
        ("mount -o subvol=/ /dev/mapper/enc /mnt", "/dev/mapper/enc"),
        ("mount /dev/disk/by-id/nvme-X_1-part2 /m", "/dev/disk/by-id/nvme-X_1-part2"),
        (r"dev-disk-by\x2dlabel-data.device", "/dev/disk/by-label/data"),
        ("/dev/sda2", "/dev/sda2"),
    ],
)
def test_what_stage_1_asks_for_is_known_before_it_waits(text: str, asked: str) -> None:
    assert missing_in_machine(host(initrd_text=text), machine="VM") == (
        f"stage 1 asks for {asked}, which the VM lacks, and may wait for it"
    )
    assert missing_in_machine(host(initrd_text=text), machine="container") == ("")


def test_what_the_vm_brings_itself_is_not_missing() -> None:
    made = host(
        fs("/tmp", "tmpfs", "tmpfs"),
        fs("/mnt", "/dev/vdb"),
        initrd_text="fsck /dev/disk/by-label/nixos; mkfs /dev/vda",
        machine_file_systems={"/": ROOT, "/mnt": fs("/mnt", "/dev/vdb")},
        swap_devices=("/dev/vdc",),
        machine_swap_devices=("/dev/vdc",),
    )
    assert missing_in_machine(made, machine="VM") == ""


def test_a_container_has_no_disks_at_all() -> None:
    made = host(
        fs("/data", "/dev/disk/by-label/data"),
        fs("/srv", "/opt/srv", "none", "bind"),
        fs("/net", "nas:/x", "nfs"),
        swap_devices=("/dev/sdb",),
    )
    made = replace(made, machine_file_systems=made.file_systems)
    assert missing_in_machine(made, machine="container") == (
        "/data and a swap device are not in the container"
    )


def test_units_that_wait_for_hardware_are_named_with_it() -> None:
    zigbee = replace(
        unit("zigbee.service", "Unit", "BindsTo", r"dev-serial-by\x2did-usb\x2dcc2652.device"),
        wanted_by=("multi-user.target",),
    )
    wireless = replace(
        unit("wifi.service", "Unit", "Requires", "sys-subsystem-net-devices-wlan0.device a.target"),
        wanted_by=("multi-user.target",),
    )
    by_hand = unit("by-hand.service", "Unit", "Requires", "dev-ttyUSB0.device")
    there = replace(unit("there.service", "Unit", "Requires", "dev-vda.device"), wanted_by=("a",))
    made = host(units=(zigbee, wireless, by_hand, there))

    assert missing_in_machine(made, machine="VM") == (
        "wifi.service (/sys/subsystem/net/devices/wlan0) and zigbee.service (/dev/serial/by-id/usb-cc2652)"
        " wait for hardware that the VM lacks"
    )
    one = host(units=(zigbee,))
    assert missing_in_machine(one, machine="container").endswith(
        "zigbee.service (/dev/serial/by-id/usb-cc2652) waits for hardware that the container lacks"
    )
