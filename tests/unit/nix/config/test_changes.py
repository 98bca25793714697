"""What a machine has instead of what its host declares, in groups."""

from __future__ import annotations

import pytest

from pytest_nixos.nix.config.changes import changes, leaves

CHANGED = {
    "virtualisation.restrictNetwork": (False, True),
    "system.build.installBootLoader": ("own", "none"),
    "fileSystems": (
        {"/": {"device": "/dev/vda1", "options": ["noatime"]}, "/srv": {"device": "/dev/vdb"}},
        {"/": {"device": "/dev/disk/by-label/nixos", "options": ["noatime"]}},
    ),
    'fileSystems."/".device': ("/dev/vda1", "/dev/disk/by-label/nixos"),
    'systemd.units."srv.mount"': ({"enabled": True}, None),
    'systemd.units."sshd.service".Unit.X-Restart-Triggers': (["a"], ["b"]),
    "users.users": ({"a": {"uid": 1}, "b": {"uid": 2}}, {"a": {"uid": 1}}),
    "services.timesyncd.enable": (True, False),
    'systemd.units."pytest-nixos-channel.service"': (None, {"enabled": True}),
    "boot.kernelParams": (["quiet"], ["quiet", "console=ttyS0"]),
    "virtualisation.graphics": (True, False),
    "virtualisation.useNixStoreImage": (False, True),
    "something.strange": (1, 2),
}


def test_what_differs_is_told_in_groups_with_a_reason() -> None:
    found = {change.what: set(change.options) for change in changes(CHANGED)}
    assert found == {
        "command channel": {'systemd.units."pytest-nixos-channel.service"'},
        "boot loader": {"system.build.installBootLoader"},
        "store": {"virtualisation.useNixStoreImage"},
        "outside network": {"virtualisation.restrictNetwork"},
        "memory, processors, display, manual": {"virtualisation.graphics"},
        "disks and file systems": {
            'fileSystems."/".device',
            'fileSystems."/srv"',
            'systemd.units."srv.mount"',
        },
        "clock": {"services.timesyncd.enable"},
        "kernel": {"boot.kernelParams"},
        "network, users, services": {"users.users.b"},
        "other options": {"something.strange"},
    }
    assert all(change.why and "\n" not in change.why for change in changes(CHANGED))
    assert len(found) <= 10


def test_sets_are_told_by_what_differs_in_them_and_notes_of_systemd_not_at_all() -> None:
    found = leaves(CHANGED)
    assert "fileSystems" not in found and "users.users" not in found
    assert not [path for path in found if "Triggers" in path]
    assert found["users.users.b"] == ({"uid": 2}, None)


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ('systemd.units."systemd-timesyncd.service".enabled', "clock"),
        ('systemd.units."dev-zram0.swap"', "disks and file systems"),
        ('systemd.units."systemd-fsck@.service"', "disks and file systems"),
        ('systemd.units."sysinit.target".wantedBy', "command channel"),
        ('systemd.units."dhcpcd.service"', "network, users, services"),
        ("boot.initrd.luks.devices.crypted.device", "disks and file systems"),
        ("boot.isContainer", "kernel"),
        ("virtualisation.sharedDirectories", "store"),
        ("networking.firewall.allowPing", "network, users, services"),
    ],
)
def test_each_option_stands_with_its_reason(path: str, what: str) -> None:
    (change,) = changes({path: (1, 2)})
    assert change.what == what
