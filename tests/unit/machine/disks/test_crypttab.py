"""LUKS devices that stage 2 opens."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.disks.crypttab import crypttab_entries
from pytest_nixos.machine.disks.layout import layout_of
from pytest_nixos.machine.disks.script import TEST_KEY, making_script
from pytest_nixos.nix.config.declared import FileSystem, LuksDevice
from pytest_nixos.nix.config.host_facts import HostConfig
from tests.unit.standards.samples import host_config


def fs(point: str, device: str, kind: str = "ext4", *options: str) -> FileSystem:
    return FileSystem(mount_point=point, device=device, fs_type=kind, options=options)


def host(crypttab: str, *systems: FileSystem) -> HostConfig:
    every = systems or (
        fs("/", "/dev/disk/by-label/root"),
        fs("/data", "/dev/mapper/data"),
    )
    made = host_config(file_systems={s.mount_point: s for s in every})
    return replace(made, crypttab=crypttab)


def test_fields_that_say_nothing_mean_a_passphrase() -> None:
    first, second = crypttab_entries(
        "# name device\n\ndata UUID=1-2 none luks,headless=true\nswap /dev/sda2 /dev/urandom swap\n"
    )

    assert (first.device, first.key_file, first.is_luks, first.is_headless) == (
        "UUID=1-2",
        "",
        True,
        True,
    )
    assert not second.is_luks


def test_a_device_is_made_and_its_key_put_where_the_running_system_reads_it() -> None:
    script = making_script(layout_of(host("data PARTLABEL=data /etc/keys/data luks")))

    assert "cryptsetup open --key-file - /dev/vda2 data" in script
    assert f"printf %s {TEST_KEY} > /plan/made/etc/keys/data\nchmod 0400" in script


def test_a_key_below_a_bind_mount_lies_at_its_source() -> None:
    made = host(
        "data PARTLABEL=data /etc/keys/data luks",
        fs("/", "tmpfs", "tmpfs"),
        fs("/persist", "/dev/vda1"),
        fs("/etc/keys", "/persist/keys", "none", "bind"),
        fs("/data", "/dev/mapper/data"),
    )

    assert layout_of(made).keys_on_disk == ("/persist/keys/data",)


def test_a_device_that_may_be_absent_is() -> None:
    made = host("data /dev/disk/by-id/usb-x none luks,nofail", fs("/", "/dev/vda1"))

    assert layout_of(made).words == "vda: ext4; sizes are chosen"


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (
            host("data PARTLABEL=data /run/secrets/data luks"),
            "crypttab unlocks data by /run/secrets/data, which lies on none of its disks",
        ),
        (
            host(
                "data PARTLABEL=data /k luks",
                fs("/", "t", "tmpfs"),
                fs("/data", "/dev/mapper/data"),
            ),
            "by /k, which lies on none",
        ),
        (host("data PARTLABEL=data none luks,headless"), "data is unlocked by none of its VM"),
        (
            replace(
                host("", fs("/", "/dev/mapper/c")),
                luks={"c": LuksDevice(name="c", device="/dev/vda1", headless=True)},
            ),
            r"c is unlocked by none of its VM: nobody may be asked \(headless\)",
        ),
    ],
)
def test_a_device_without_a_way_to_unlock_it_is_refused(made: HostConfig, told: str) -> None:
    with pytest.raises(MachineError, match=told):
        layout_of(made)
