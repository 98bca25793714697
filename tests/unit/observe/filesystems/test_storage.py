"""Disks and encryption, as lsblk and cryptsetup tell of them."""

from __future__ import annotations

import json

from pytest_nixos.observe.filesystems.storage import STORAGE_FACTS


def test_plain_mounts_are_those_without_encryption_below() -> None:
    tree = {
        "blockdevices": [
            {"type": "disk", "mountpoints": [None], "children": [
                {"type": "part", "mountpoints": ["/boot"]},
                {"type": "part", "mountpoints": [None], "children": [{"type": "crypt", "mountpoints": ["/"]}]},
                {"type": "part", "mountpoints": ["/data"]},
            ]},
            {"type": "disk", "fstype": "erofs", "mountpoints": ["/nix/store"]},
        ]
    }  # fmt: skip
    parse = STORAGE_FACTS["plain-mounts"].parse
    assert parse(json.dumps(tree)) == ["/data"]
    assert parse("lsblk: not found") == ["lsblk gave no readable answer"]


def test_luks_devices() -> None:
    found = STORAGE_FACTS["luks"].parse("/dev/sda2=2|argon2id,argon2id,|1|0|2\n/dev/sdb=1||0|0|0\n")
    assert found["/dev/sda2"] == {
        "version": "2", "kdf": ["argon2id"], "tpm2": True, "recovery": False, "slots": 2,
    }  # fmt: skip
    assert found["/dev/sdb"]["kdf"] == []
