"""Disks, what lies on them, and what that takes in room: the values of a layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pytest_nixos.nix.config.declared import FileSystem

__all__ = ["MAKEABLE", "Array", "Disk", "Layout", "Partition", "Volume", "nested"]

#: What the programs of a host's own packages make of an empty device.
MAKEABLE = frozenset({"ext2", "ext3", "ext4", "vfat", "btrfs", "xfs"})
_SIZES_MIB = {"vfat": 256, "swap": 256, "nothing": 8}
_SIZE_MIB = 2048
_OVERHEAD_MIB = 64  # of LUKS headers and LVM's metadata


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """What a device holds.

    :param kind: ``ext4``, ``vfat``, ``swap``, ... ; ``luks``, ``lvm``; ``member`` of an array of
        mdraid; ``further`` device of a group of volumes; ``empty``; ``nothing`` for a partition
        that the host names and leaves as it is.
    :param label: of the file system, ``""`` for none; `uuid` likewise.
    :param name: of what lies on it: the opened LUKS device, the group of volumes; the array's device.
    :param subvolumes: of btrfs, those that are there.
    :param inside: what lies on what it opens: for LVM by the name of the logical volume, else
        below ``""``.
    :param room_mib: of a member, what its array holds.
    :param pcrs: of a LUKS device that a TPM unlocks, to what its key is bound, ``""`` of others.
    """

    kind: str
    label: str = ""
    uuid: str = ""
    name: str = ""
    subvolumes: tuple[str, ...] = ()
    inside: Mapping[str, Volume] = msgspec.field(default_factory=dict)
    room_mib: int = 0
    pcrs: str = ""

    @property
    def size_mib(self) -> int:
        """Room that it needs."""
        if self.room_mib:
            return self.room_mib
        if self.inside:
            return _OVERHEAD_MIB + sum(volume.size_mib for volume in self.inside.values())
        return _SIZES_MIB.get(self.kind, _SIZE_MIB)


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of a disk with a GPT.

    :param number: from 1.
    :param guid: its type, ``""`` for what goes with its volume.
    """

    number: int
    volume: Volume
    name: str = ""
    uuid: str = ""
    guid: str = ""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk by the kernel's name (``vda``, ``sda``, ``nvme0n1``).

    :param whole: what it holds where it has no partitions.
    """

    name: str
    partitions: tuple[Partition, ...] = ()
    whole: Volume | None = None

    @property
    def device(self) -> str:
        """Its path in the guest."""
        return f"/dev/{self.name}"

    @property
    def size_mib(self) -> int:
        """Room of all that it holds, and of the partition table."""
        return 8 + sum(volume.size_mib for volume in self.held)

    @property
    def held(self) -> Sequence[Volume]:
        """What lies on it or its partitions."""
        return (self.whole,) if self.whole else tuple(p.volume for p in self.partitions)

    def partition_device(self, number: int) -> str:
        """Path of a partition in the guest."""
        return f"{self.device}{'p' if self.name[-1].isdigit() else ''}{number}"

    def devices(self) -> Iterator[tuple[str, Volume]]:
        """Yield path and content of the disk or of each partition."""
        if self.whole is not None:
            yield self.device, self.whole
        for partition in self.partitions:
            yield self.partition_device(partition.number), partition.volume


class Array(msgspec.Struct, frozen=True, kw_only=True):
    """An array of mdraid.

    :param device: by which the host names it (``/dev/md0``, ``/dev/md/root``).
    :param name: in its superblock, with the host that it belongs to before it where it has one
        (``nixos:0``).
    :param level: as mdadm(8) takes it (``raid1``).
    :param metadata: version of its superblock.
    :param uuid: as mdadm writes it, ``""`` for any.
    """

    device: str
    volume: Volume
    name: str
    level: str = "raid1"
    metadata: str = "1.2"
    uuid: str = ""

    @property
    def made_at(self) -> str:
        """Path to make it by: udev's links come later."""
        short = self.name.rpartition(":")[2]
        return self.device if self.device.startswith("/dev/md") else f"/dev/md/{short}"


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """All disks of a host.

    :param arrays: made of members on `disks`.
    :param mounts: what has to be mounted to make `folders`, in order of the mount points.
    :param folders: directories that have to be there before something is bound to them.
    :param swap_files: swap files that the host expects to find.
    :param key_files: files that stage 1 reads the key of a LUKS device from.
    :param keys_on_disk: files with such a key in the host's file systems.
    :param absent: mount points whose device the VM lacks and that may be absent.
    :param otherwise: what is made in another way than declared, in words.
    """

    disks: tuple[Disk, ...]
    arrays: tuple[Array, ...] = ()
    mounts: tuple[FileSystem, ...] = ()
    folders: tuple[str, ...] = ()
    swap_files: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    keys_on_disk: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    otherwise: tuple[str, ...] = ()

    @property
    def first(self) -> Disk | None:
        """The disk that the mark of what is done lies on."""
        return next((disk for disk in self.disks if disk.held), None)

    @property
    def by_tpm(self) -> tuple[str, ...]:
        """Names of the LUKS devices that the TPM unlocks."""
        outer = (*(v for disk in self.disks for v in disk.held), *(a.volume for a in self.arrays))
        return tuple(v.name for top in outer for v in nested(top) if v.pcrs)

    @property
    def words(self) -> str:
        """What is made, on one line."""
        told = [
            *(
                f"{disk.name}: {', '.join(_words(v) for v in disk.held) or 'empty'}"
                for disk in self.disks
            ),
            *(f"{a.device} ({a.level}): {_words(a.volume)}" for a in self.arrays),
            "sizes are chosen",
            *([f"without {', '.join(self.absent)}"] if self.absent else []),
            *self.otherwise,
        ]
        return "; ".join(told)


def nested(volume: Volume) -> Iterator[Volume]:
    """Yield all that lies on a volume, innermost first, and the volume."""
    for inner in volume.inside.values():
        yield from nested(inner)
    yield volume


def _words(volume: Volume) -> str:
    inner = ", ".join(_words(v) for v in volume.inside.values())
    said = {
        "member": f"member of {volume.name}",
        "further": f"more of {volume.name}",
        "nothing": "unformatted",
    }
    name = said.get(volume.kind, volume.kind) + (" by TPM" if volume.pcrs else "")
    return f"{name} ({inner})" if inner else name
