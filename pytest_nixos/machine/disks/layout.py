"""Which disks, partitions and containers a host needs so that what its config names is there.

A host names what it mounts, seldom where that lies: ``/dev/disk/by-label/nixos`` says nothing of a
disk, its partitions or their sizes. What is not said is chosen, small, and told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_lowercase

from pytest_nixos.errors import MachineError
from pytest_nixos.nix.declared import FileSystem
from pytest_nixos.nix.host_facts import HostConfig

__all__ = ["Disk", "Layout", "Partition", "Volume", "layout_of"]

#: What the programs of a host's own packages make of an empty device.
MAKEABLE = frozenset({"ext2", "ext3", "ext4", "vfat", "btrfs", "xfs"})
_DISKLESS = frozenset(
    {"tmpfs", "ramfs", "proc", "sysfs", "devpts", "devtmpfs", "overlay", "none", "efivarfs"}
)
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "virtiofs", "fuse.sshfs", "davfs"}
)
_MAY_BE_ABSENT = frozenset({"noauto", "nofail"})
_SIZES_MIB = {"vfat": 256, "swap": 256}
_SIZE_MIB = 2048
_OVERHEAD_MIB = 64  # of LUKS headers and LVM's metadata
_NAMED = re.compile(r"(?:/dev/disk/by-)?(label|uuid|partlabel|partuuid)[/=](.+)", re.IGNORECASE)
_PLAIN = re.compile(r"/dev/(vda|sd[a-z]|nvme\d+n1)(?:p?(\d+))?")
_LOGICAL = re.compile(r"/dev/(?!disk/|mapper/|md|zvol/)([\w.+-]+)/([\w.+-]+)")
_MAPPED = re.compile(r"/dev/mapper/((?:[\w.+]|--)+)-((?:[\w.+]|--)+)")
_FIRST_DISK = "vda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """What a device holds.

    :param kind: ``ext4``, ``vfat``, ``swap``, ... ; ``luks``, ``lvm``; ``empty``.
    :param label: of the file system, ``""`` for none; `uuid` likewise.
    :param name: of what lies on it: the opened LUKS device, the group of volumes.
    :param subvolumes: of btrfs, those that are mounted.
    :param inside: what lies on what it opens: for LVM by the name of the logical volume, else
        below ``""``.
    """

    kind: str
    label: str = ""
    uuid: str = ""
    name: str = ""
    subvolumes: tuple[str, ...] = ()
    inside: Mapping[str, Volume] = field(default_factory=dict)

    @property
    def size_mib(self) -> int:
        """Room that it needs."""
        if self.inside:
            return _OVERHEAD_MIB + sum(volume.size_mib for volume in self.inside.values())
        return _SIZES_MIB.get(self.kind, _SIZE_MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition of a disk with a GPT.

    :param number: from 1.
    """

    number: int
    volume: Volume
    name: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
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
        held = [p.volume.size_mib for p in self.partitions]
        return 8 + sum(held) + (self.whole.size_mib if self.whole else 0)

    def partition_device(self, number: int) -> str:
        """Path of a partition in the guest."""
        return f"{self.device}{'p' if self.name[-1].isdigit() else ''}{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """All disks of a host.

    :param mounts: what has to be mounted to make `folders`, in order of the mount points.
    :param folders: directories that have to be there before something is bound to them.
    :param swap_files: swap files that the host expects to find.
    :param key_files: files that stage 1 reads the key of a LUKS device from.
    :param absent: mount points whose device the VM lacks and that may be absent.
    """

    disks: tuple[Disk, ...]
    mounts: tuple[FileSystem, ...] = ()
    folders: tuple[str, ...] = ()
    swap_files: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What is made, on one line."""
        told = [
            f"{disk.name}: {', '.join(_volume_words(v) for v in _held(disk)) or 'empty'}"
            for disk in self.disks
        ]
        absent = f"; without {', '.join(self.absent)}" if self.absent else ""
        return f"{'; '.join(told)}; sizes are chosen{absent}"


def layout_of(host: HostConfig) -> Layout:
    """Return the disks that a host needs.

    :raises MachineError: if it declares what cannot be made, with the entry that asks for it.
    """
    plan = _Plan(host)
    absent = [entry.mount_point for entry in _on_devices(host) if not plan.add(entry)]
    for swap in host.swap:
        if swap.device.startswith("/dev/") or "=" in swap.device:
            plan.put(swap.device, "empty" if swap.randomly_encrypted else "swap", "swapDevices")
    mounts = sorted(
        (e for e in _on_devices(host) if e.mount_point not in absent), key=lambda e: e.mount_point
    )
    return Layout(
        disks=plan.disks(),
        mounts=tuple(mounts),
        folders=_bound(host),
        swap_files=tuple(
            s.device
            for s in host.swap
            if s.size_mib is None and s.device.startswith("/") and not s.device.startswith("/dev/")
        ),
        key_files=tuple(
            luks.key_file
            for luks in host.luks.values()
            if luks.key_file and not luks.key_file.startswith("/dev/")
        ),
        absent=tuple(sorted(absent)),
    )


class _Plan:
    """Device paths and what has to be found there."""

    def __init__(self, host: HostConfig) -> None:
        self._host = host
        self._luks = {f"/dev/mapper/{d.name}": d for d in host.luks.values()}
        self._found: dict[str, Volume] = {}
        self._groups: dict[str, dict[str, Volume]] = {}

    def add(self, entry: FileSystem) -> bool:
        """Take a file system; return whether the VM has it."""
        try:
            kind = "ext4" if entry.fs_type == "auto" else entry.fs_type
            if kind not in MAKEABLE:
                raise _cannot(
                    self._host,
                    f'fileSystems."{entry.mount_point}" is {kind}, which the VM\'s stage 1 cannot make',
                )
            named = [
                o.partition("=")[2].strip("/") for o in entry.options if o.startswith("subvol=")
            ]
            self.put(entry.device or "", kind, f'fileSystems."{entry.mount_point}"', *named)
        except MachineError:
            if _MAY_BE_ABSENT & set(entry.options):
                return False
            raise
        return True

    def put(self, device: str, kind: str, who: str, *subvolumes: str) -> None:
        """Take what has to be found at a device.

        :param who: the option that names it.
        """
        logical = self._logical(device)
        place = self._groups.setdefault(logical[0], {}) if logical else self._found
        key = logical[1] if logical else device
        if not logical and device not in self._luks:
            _check_device(self._host, device, who)
        before = place.get(key)
        if before is not None and before.kind != kind:
            raise _cannot(self._host, f"{device} is {before.kind} and, by {who}, {kind}")
        known = before.subvolumes if before else ()
        wanted = tuple(s for s in subvolumes if s and s not in known)
        place[key] = replace(_named(device, kind), subvolumes=(*known, *wanted))

    def disks(self) -> tuple[Disk, ...]:
        """Return the disks on which all that lies."""
        self._wrap_groups()
        self._wrap_luks()
        return _partitioned(self._host, self._found)

    def _logical(self, device: str) -> tuple[str, str] | None:
        """Return group and name of a logical volume."""
        if device in self._luks:
            return None
        if found := _LOGICAL.fullmatch(device):
            return found[1], found[2]
        if found := _MAPPED.fullmatch(device):
            return found[1].replace("--", "-"), found[2].replace("--", "-")
        return None

    def _wrap_groups(self) -> None:
        """Put each group of volumes on the LUKS device that nothing else uses, or on a partition."""
        for group, volumes in self._groups.items():
            unused = [d for d in self._luks if d not in self._found]
            device = unused[0] if unused else f"PARTLABEL=pytest-nixos-{group}"
            self._found[device] = Volume(kind="lvm", name=group, inside=dict(volumes))

    def _wrap_luks(self) -> None:
        """Put what lies on opened LUKS devices on those that are closed, innermost first."""
        left = dict(self._luks)
        while left:
            opened = next(
                (d for d in left if all(other.device != d for other in left.values())), None
            )
            if opened is None:
                raise _cannot(self._host, f"LUKS devices lie on each other: {', '.join(left)}")
            luks = left.pop(opened)
            if luks.header:
                raise _cannot(
                    self._host,
                    f"the LUKS device {luks.name} has its header elsewhere ({luks.header})",
                )
            if luks.key_file.startswith("/dev/"):
                raise _cannot(
                    self._host,
                    f"the LUKS device {luks.name} is unlocked by {luks.key_file}, a device that the VM lacks",
                )
            inner = self._found.pop(opened, Volume(kind="empty"))
            if luks.device not in self._luks:
                _check_device(self._host, luks.device, f"boot.initrd.luks.devices.{luks.name}")
            self._found[luks.device] = replace(
                _named(luks.device, "luks"), name=luks.name, inside={"": inner}
            )


def _partitioned(host: HostConfig, found: Mapping[str, Volume]) -> tuple[Disk, ...]:
    """Give each device its place: where its path says, else on the first disk."""
    disks: dict[str, Disk] = {}
    taken: dict[str, dict[int, Partition]] = {_FIRST_DISK: {}}
    for device, volume in found.items():
        plain = _PLAIN.fullmatch(device)
        if plain is None:
            continue
        if plain[2] is None:
            disks[plain[1]] = Disk(name=plain[1], whole=volume)
        else:
            number = int(plain[2])
            taken.setdefault(plain[1], {})[number] = Partition(number=number, volume=volume)
    for device, volume in found.items():
        if _PLAIN.fullmatch(device):
            continue
        by = _NAMED.fullmatch(device)
        kind, value = (by[1].lower(), _unescaped(by[2])) if by else ("", "")
        number = next(n for n in range(1, 129) if n not in taken[_FIRST_DISK])
        taken[_FIRST_DISK][number] = Partition(
            number=number,
            volume=volume,
            name=value if kind == "partlabel" else "",
            uuid=value if kind == "partuuid" else "",
        )
    for name, numbered in taken.items():
        if not numbered:
            continue
        if name in disks:
            raise _cannot(host, f"/dev/{name} holds a file system and has partitions")
        disks[name] = Disk(name=name, partitions=tuple(numbered[n] for n in sorted(numbered)))
    return (
        *([disks[_FIRST_DISK]] if _FIRST_DISK in disks else []),
        *_without_gaps(disks, [f"sd{letter}" for letter in ascii_lowercase]),
        *_without_gaps(disks, [f"nvme{number}n1" for number in range(16)]),
    )


def _without_gaps(disks: Mapping[str, Disk], names: Sequence[str]) -> Sequence[Disk]:
    """Return the disks of one bus, with empty ones between them: the kernel counts them."""
    last = max((n for n, name in enumerate(names) if name in disks), default=-1)
    return [disks.get(name, Disk(name=name)) for name in names[: last + 1]]


def _on_devices(host: HostConfig) -> Sequence[FileSystem]:
    """Return the file systems that lie on a disk of the host, those on other machines left out."""
    return [
        entry
        for point, entry in sorted(host.file_systems.items())
        if entry.fs_type not in _DISKLESS | _REMOTE
        and not {"bind", "rbind"} & set(entry.options)
        and point not in ("/nix/store", "/nix/.ro-store", "/nix/.rw-store")
    ]


def _bound(host: HostConfig) -> tuple[str, ...]:
    entries = (e for _, e in sorted(host.file_systems.items()))
    return tuple(
        e.device
        for e in entries
        if {"bind", "rbind"} & set(e.options) and e.device and not e.device.startswith("/nix/store")
    )


def _named(device: str, kind: str) -> Volume:
    by = _NAMED.fullmatch(device)
    if by is None or by[1].lower().startswith("part"):
        return Volume(kind=kind)
    value = _unescaped(by[2])
    is_label = by[1].lower() == "label"
    return Volume(kind=kind, label=value if is_label else "", uuid="" if is_label else value)


def _check_device(host: HostConfig, device: str, who: str) -> None:
    if not _NAMED.fullmatch(device) and not _PLAIN.fullmatch(device):
        raise _cannot(host, f"{who} names {device or 'no device'}, which no disk of a VM can be")


def _cannot(host: HostConfig, what: str) -> MachineError:
    return MachineError(
        f"{host.name}: its own disks cannot be made: {what}",
        remedy="run it with the disk of build-vm (--nixos-disks default), or make it fit in the host's"
        " virtualisation.vmVariant; what can be made is in 'Hosts with their own disks'",
    )


def _unescaped(text: str) -> str:
    r"""Return a label as it is: udev writes ``a\x20b`` (systemd ``encode_devnode_name``)."""
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)


def _held(disk: Disk) -> Sequence[Volume]:
    return (disk.whole,) if disk.whole else tuple(p.volume for p in disk.partitions)


def _volume_words(volume: Volume) -> str:
    inner = ", ".join(_volume_words(v) for v in volume.inside.values())
    return f"{volume.kind} ({inner})" if inner else volume.kind
