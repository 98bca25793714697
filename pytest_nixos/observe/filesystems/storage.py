"""Disks, encryption and free space of a machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.filesystems.swap import SWAP_FACTS
from pytest_nixos.observe.text import pairs, read_json, whole

__all__ = ["STORAGE_FACTS"]

Json = Any

_LSBLK = "lsblk --json --output NAME,PATH,TYPE,FSTYPE,MOUNTPOINTS"
_BOOT_MOUNTS = frozenset({"/boot", "/boot/efi", "/efi"})

_SCHEDULERS = r"""
for queue in /sys/block/*/queue; do
  disk=${queue%/queue} name=${queue%/queue}; name=${name##*/}
  case $name in loop*|zram*|dm-*|md*|sr*|ram*|fd*) continue;; esac
  case $name in nvme*) class=nvme;; vd*|mmcblk*|xvd*) class=virtual;; *)
    read -r rotational < "$queue/rotational"
    if [ "$rotational" = 1 ]; then class=hdd; else class=ssd; fi;; esac
  read -r scheduler < "$queue/scheduler"
  scheduler=${scheduler##*\[}
  printf '%s=%s:%s\n' "$name" "$class" "${scheduler%%\]*}"
done"""

_LUKS = r"""
command -v cryptsetup >/dev/null || return 3
local found=3
for device in $(lsblk --noheadings --raw --output PATH,FSTYPE | awk '$2 == "crypto_LUKS" { print $1 }'); do
  found=0
  cryptsetup luksDump "$device" | awk -v d="$device" '
    /^Version:/ { version = $2 } /PBKDF:/ { kdf = kdf $2 "," } /systemd-tpm2/ { tpm = 1 } /tpm2-hash-pcrs|tpm2-pcrs/ { pcrs = $0 }
    /systemd-recovery/ { recovery = 1 } /^  [0-9]+: luks2/ { slots++ }
    END { printf "%s=%s|%s|%s|%s|%s\n", d, version, kdf, tpm + 0, (recovery + 0), slots + 0; }'
done
return $found"""

_SECURE_BOOT = r"""
var=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -e "$var" ] || exit 3
od -An -t u1 "$var" | awk '{ print $5 }'"""


def _percentages(text: str) -> dict[str, Json]:
    rows = (line.split(None, 1) for line in text.split("\n"))
    return {
        row[1]: used
        for row in rows
        if len(row) == 2 and (used := whole(row[0].removesuffix("%"))) is not None
    }


def _plain_mounts(text: str) -> list[str]:
    """Return mounted data file systems that no encrypted device lies below."""
    try:
        devices = read_json(text)["blockdevices"]
    except (ValueError, KeyError, TypeError):
        return ["lsblk gave no readable answer"]
    return sorted(set(_plain(devices, encrypted=False)))


def _plain(devices: Json, *, encrypted: bool) -> Iterator[str]:
    for device in devices or ():
        inside = encrypted or device.get("type") == "crypt"
        mounts = [m for m in device.get("mountpoints") or () if m and m not in _BOOT_MOUNTS]
        # A read-only image, such as that of a VM's store, holds nothing that somebody wrote there.
        image = device.get("fstype") in ("erofs", "squashfs")
        if not inside and not image and device.get("type") not in ("rom", "loop"):
            yield from mounts
        yield from _plain(device.get("children"), encrypted=inside)


def _luks(text: str) -> dict[str, Json]:
    devices = {}
    for device, value in pairs(text).items():
        fields = [*value.split("|"), "", "", "", "", ""]
        devices[device] = {
            "version": fields[0],
            "kdf": sorted({kdf for kdf in fields[1].split(",") if kdf}),
            "tpm2": fields[2] == "1",
            "recovery": fields[3] == "1",
            "slots": whole(fields[4]) or 0,
        }
    return devices


STORAGE_FACTS: Mapping[str, Fact] = {
    "usage": Fact(
        script="df --output=pcent,target / /nix /boot 2>/dev/null; true",
        parse=_percentages,
        about="percent used of `/`, `/nix` and `/boot`",
    ),
    "schedulers": Fact(
        script=_SCHEDULERS,
        parse=pairs,
        about="class and active I/O scheduler of each disk, for example `ssd:mq-deadline`",
    ),
    **SWAP_FACTS,
    "plain-mounts": Fact(
        script=_LSBLK,
        parse=_plain_mounts,
        about="mounted file systems, `/boot` left out, below which no encrypted device lies",
    ),
    "luks": Fact(
        script=_LUKS,
        inline=True,
        parse=_luks,
        about="version, key derivation and slots of each LUKS device",
        lacking="the machine has no LUKS device",
    ),
    "secure-boot": Fact(
        script=_SECURE_BOOT,
        parse=lambda text: text.strip() == "1",
        about="whether the firmware enforces Secure Boot",
        lacking="the machine was not started by UEFI firmware",
    ),
}
