"""The script by which stage 1 of a guest makes a layout on empty disks, with the host's own programs.

It runs under bash with only the store, ``/dev``, ``/proc``, ``/sys`` and ``/run`` beside it, once: a
mark before the first partition of the first disk tells that it is done.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator, Mapping

from pytest_nixos.machine.disks.tpm import extending_steps
from pytest_nixos.machine.disks.volumes import Array, Disk, Layout, Volume, nested
from pytest_nixos.nix.config.declared import FileSystem

__all__ = ["TEST_KEY", "given_files", "making_script"]

#: Unlocks every LUKS device of a VM. It protects nothing, and is never a key of the user's.
TEST_KEY = "pytest-nixos-test-key"

# Behind the partition table, and before the first partition, which sfdisk starts at 1 MiB.
_MARK_AT = 512 * 1024
_SWAP_FILE_MIB = 64
# Whether udev makes the nodes of logical volumes depends on the rules that a stage 1 has; lvm makes those that are missing.
_NODES = "--config activation/verify_udev_operations=1"

_PRELUDE = """set -eu
say() { echo "pytest-nixos: $*"; }
trap 'say "failed: $BASH_COMMAND"' ERR
settle() { udevadm settle 2>/dev/null || true; }
await() { for _ in $(seq 100); do [ -e "$1" ] && return; sleep 0.1; done; say "$1 does not appear"; return 1; }
@KEYS@
@ORDER@if [ "@FOUND@" = "@MARK@" ]; then exit 0; fi
say "making the disks that the host declares"
"""
_END = """sync
@WRITE@
sync
say "the disks are made"
"""


def making_script(layout: Layout) -> str:
    """Return the script that makes `layout`; it changes nothing on disks that it made before."""
    made = "\n".join(_steps(layout))
    keys = given_files({f"/plan/stage-1{file}": TEST_KEY for file in layout.key_files})
    first = layout.first
    if first is None:
        return keys
    found, mark, write = _whole_mark(first.device)
    if first.partitions:
        found, mark, write = _mark(
            first.device, f"disks-{hashlib.sha256(made.encode()).hexdigest()[:16]}"
        )
    text = f"{_PRELUDE}{made}\n{_END}"
    order = extending_steps(first.device) if layout.by_tpm and first.partitions else ""
    parts = {"KEYS": keys, "ORDER": order, "FOUND": found, "MARK": mark, "WRITE": write}
    for name, value in parts.items():
        text = text.replace(f"@{name}@", value)
    return text


def given_files(files: Mapping[str, str]) -> str:
    """Return what writes files, by path; nobody but their owner may write them."""
    return "".join(
        f"mkdir -p {_quoted(file.rpartition('/')[0])}\nprintf %s {_quoted(text)} > {_quoted(file)}\n"
        for file, text in files.items()
    )


def _mark(device: str, mark: str) -> tuple[str, str, str]:
    """Return what reads a mark, what it has to be, and what writes it."""
    place = f"bs={_MARK_AT} conv=notrunc status=none"
    return (
        f"$(dd if={device} {place} skip=1 count=1 | head -c {len(mark)} | tr -d '\\0')",
        mark,
        f"printf %s {mark} | dd of={device} {place} seek=1",
    )


def _whole_mark(device: str) -> tuple[str, str, str]:
    """Return the same of a disk without partitions, which has no room for one."""
    return f"$(blkid --probe {device} > /dev/null && echo made)", "made", ""


def _steps(layout: Layout) -> Iterator[str]:
    for disk in layout.disks:
        yield from _disk_steps(disk)
    for array in layout.arrays:
        yield from _array_steps(layout, array)
    for device, volume in _further(layout):
        yield f"lvm vgextend {_quoted(volume.name)} {device}"
    yield from _fill_steps(layout)
    yield from _close_steps(layout)


def _disk_steps(disk: Disk) -> Iterator[str]:
    if disk.whole or disk.partitions:
        # A driver may still be looking for it (NVMe).
        yield f"await {disk.device}"
    if disk.whole is not None:
        yield from _volume_steps(disk.device, disk.whole)
        return
    if not disk.partitions:
        return
    yield f"sfdisk --quiet --wipe always {disk.device} <<'EOF'\n{_table(disk)}EOF\nsettle"
    for partition in disk.partitions:
        device = disk.partition_device(partition.number)
        yield f"await {device}"
        yield from _volume_steps(device, partition.volume)


def _array_steps(layout: Layout, array: Array) -> Iterator[str]:
    """Make an array; its members are empty, and so the same already."""
    members = [
        device
        for disk in layout.disks
        for device, volume in disk.devices()
        if volume.kind == "member" and volume.name == array.device
    ]
    owner, _, name = array.name.rpartition(":")
    yield (
        f"mdadm --create {_quoted(array.made_at)} --run --force --assume-clean --bitmap=none"
        f" --level={_quoted(array.level)} --metadata={_quoted(array.metadata)}"
        f" --homehost={_quoted(owner or 'any')} --name={_quoted(name)}{_option('--uuid', array.uuid)}"
        f" --raid-devices={len(members)} {' '.join(members)}"
    )
    yield f"settle\nawait {_quoted(array.made_at)}"
    yield from _volume_steps(_quoted(array.made_at), array.volume)


def _further(layout: Layout) -> Iterator[tuple[str, Volume]]:
    """Yield what a group of volumes lies on beside its first device, by the path to it."""
    held = [
        *(pair for disk in layout.disks for pair in disk.devices()),
        *((array.made_at, array.volume) for array in layout.arrays),
    ]
    for device, volume in held:
        inner = volume.inside.get("") if volume.kind == "luks" else volume
        if inner is not None and inner.kind == "further":
            yield (f"/dev/mapper/{volume.name}" if inner is not volume else device), inner


def _table(disk: Disk) -> str:
    """Return the partition table as sfdisk(8) reads it."""
    types = {"vfat": "uefi", "swap": "swap", "lvm": "lvm", "further": "lvm", "member": "raid"}
    lines = ["label: gpt"]
    for partition in disk.partitions:
        words = [
            f"size={partition.volume.size_mib}MiB",
            f"type={partition.guid or types.get(partition.volume.kind, 'linux')}",
        ]
        if partition.name:
            words.append(f'name="{partition.name}"')
        if partition.uuid:
            words.append(f"uuid={partition.uuid}")
        lines.append(f"{partition.number} : {', '.join(words)}")
    return "\n".join(lines) + "\n"


def _volume_steps(device: str, volume: Volume) -> Iterator[str]:
    if volume.kind == "luks":
        yield (
            f"printf %s {TEST_KEY} | cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2"
            f" --pbkdf-force-iterations 1000{_option('--label', volume.label)}{_option('--uuid', volume.uuid)}"
            f" {device} -"
        )
        if volume.pcrs:
            yield (
                f"(umask 077; printf %s {TEST_KEY} > /plan/key)\nawait /dev/tpmrm0\n"
                f"systemd-cryptenroll --unlock-key-file=/plan/key --tpm2-device=auto"
                f" --tpm2-pcrs={_quoted(volume.pcrs)} {device}"
            )
        yield f"printf %s {TEST_KEY} | cryptsetup open --key-file - {device} {_quoted(volume.name)}"
        yield from _volume_steps(f"/dev/mapper/{volume.name}", volume.inside[""])
    elif volume.kind == "lvm":
        yield f"lvm pvcreate --force --force --yes {device}\nlvm vgcreate {_quoted(volume.name)} {device}"
        for name, inner in volume.inside.items():
            yield (
                f"lvm lvcreate {_NODES} --yes --zero n --wipesignatures n --size {inner.size_mib}m"
                f" --name {_quoted(name)} {_quoted(volume.name)}"
            )
            yield f"lvm vgmknodes {_NODES}"
            yield from _volume_steps(f"/dev/{volume.name}/{name}", inner)
    elif volume.kind == "further":
        yield f"lvm pvcreate --force --force --yes {device}"
    elif volume.kind not in ("empty", "nothing", "member"):
        yield _format(device, volume)
        yield from _subvolume_steps(device, volume)


def _format(device: str, volume: Volume) -> str:
    label, uuid = volume.label, volume.uuid
    match volume.kind:
        case "vfat":
            return f"mkfs.vfat{_option('-n', label)}{_option('-i', uuid.replace('-', ''))} {device}"
        case "btrfs":
            return f"mkfs.btrfs -q -f{_option('-L', label)}{_option('-U', uuid)} {device}"
        case "xfs":
            return f"mkfs.xfs -q -f{_option('-L', label)}{_option('-m', uuid and f'uuid={uuid}')} {device}"
        case "swap":
            return f"mkswap{_option('-L', label)}{_option('-U', uuid)} {device}"
        case kind:
            return f"mke2fs -q -F -t {kind}{_option('-L', label)}{_option('-U', uuid)} {device}"


def _subvolume_steps(device: str, volume: Volume) -> Iterator[str]:
    if not volume.subvolumes:
        return
    yield f"mkdir -p /plan/made\nmount -t btrfs {device} /plan/made"
    for name in sorted(volume.subvolumes):
        path = _quoted(f"/plan/made/{name}")
        yield f"mkdir -p {_quoted(f'/plan/made/{name}'.rpartition('/')[0])}\nbtrfs subvolume create {path}"
    yield "umount /plan/made"


def _fill_steps(layout: Layout) -> Iterator[str]:
    """Make what has to lie in the file systems before something asks for it there."""
    for path in layout.folders:
        yield from _inside(layout, path, "mkdir -p {}")
    for path in layout.keys_on_disk:
        key = f"printf %s {TEST_KEY} > {{0}}\nchmod 0400 {{0}}"
        yield from _inside(layout, path, f"mkdir -p {{1}}\n{key}")
    for path in layout.swap_files:
        command = f"truncate -s 0 {{0}}\nchattr +C {{0}} 2>/dev/null || true\ndd if=/dev/zero of={{0}} bs=1M count={_SWAP_FILE_MIB} status=none"
        yield from _inside(
            layout, path, f"mkdir -p {{1}}\n{command}\nchmod 0600 {{0}}\nmkswap {{0}}"
        )


def _inside(layout: Layout, path: str, command: str) -> Iterator[str]:
    below = [m for m in layout.mounts if _lies_in(path, m.mount_point)]
    if not below:
        return
    mount = max(below, key=lambda m: len(m.mount_point))
    rest = path.removeprefix(mount.mount_point).lstrip("/")
    inner = f"/plan/made/{rest}"
    yield f"settle\nmkdir -p /plan/made\nmount{_mount_options(mount)} {_quoted(_source(layout, mount))} /plan/made"
    yield command.format(_quoted(inner), _quoted(inner.rpartition("/")[0]))
    yield "umount /plan/made"


def _source(layout: Layout, mount: FileSystem) -> str:
    device = mount.device or ""
    for array in layout.arrays:
        if array.device == device:
            return array.made_at
    prefix = "/dev/disk/by-"
    if device.startswith(prefix):
        kind, _, value = device.removeprefix(prefix).partition("/")
        return f"{kind.upper()}={value}"
    return device


def _mount_options(mount: FileSystem) -> str:
    chosen = [o for o in mount.options if o.startswith("subvol=")]
    return f" -o {_quoted(','.join(chosen))}" if chosen else ""


def _close_steps(layout: Layout) -> Iterator[str]:
    """Leave everything closed, as stage 1 expects it; what lies on logical volumes first."""
    outer = [
        *(volume for disk in layout.disks for volume in disk.held),
        *(array.volume for array in layout.arrays),
    ]
    within = {
        id(v)
        for group in _nested(outer)
        if group.kind == "lvm"
        for v in _nested(group.inside.values())
    }
    found = list(_nested(outer))
    for volume in found:
        if volume.kind == "luks" and id(volume) in within:
            yield f"cryptsetup close {_quoted(volume.name)}"
    for volume in found:
        if volume.kind == "lvm":
            yield f"lvm vgchange -an {_quoted(volume.name)}"
    for volume in found:
        if volume.kind == "luks" and id(volume) not in within:
            yield f"cryptsetup close {_quoted(volume.name)}"
    for array in layout.arrays:
        yield f"settle\nmdadm --stop {_quoted(array.made_at)}"


def _nested(volumes: Iterable[Volume]) -> Iterator[Volume]:
    """Return volumes, innermost first."""
    for volume in volumes:
        yield from nested(volume)


def _lies_in(path: str, point: str) -> bool:
    return point in ("/", path) or path.startswith(f"{point}/")


def _option(flag: str, value: str) -> str:
    return f" {flag} {_quoted(value)}" if value else ""


def _quoted(text: str) -> str:
    return shlex.quote(text)
