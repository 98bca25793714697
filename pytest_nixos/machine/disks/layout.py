"""Which disks, partitions and containers a host needs so that what its config names is there.

A host names what it mounts, seldom where that lies: ``/dev/disk/by-label/nixos`` says nothing of a
disk, its partitions or their sizes. What is not said is chosen, small, and told.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.disks.crypttab import CrypttabEntry, crypttab_entries
from pytest_nixos.machine.disks.disko import take_disko
from pytest_nixos.machine.disks.placing import cannot
from pytest_nixos.machine.disks.plan import DiskPlan
from pytest_nixos.machine.disks.volumes import MAKEABLE, Layout
from pytest_nixos.nix.config.declared import FileSystem, LuksDevice
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["layout_of"]

_DISKLESS = frozenset(
    {"tmpfs", "ramfs", "proc", "sysfs", "devpts", "devtmpfs", "overlay", "none", "efivarfs"}
)
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "virtiofs", "fuse.sshfs", "davfs"}
)
_MAY_BE_ABSENT = frozenset({"noauto", "nofail"})
# luksroot.nix: what clevis decrypts for stage 1, which asks for a passphrase where it cannot.
_BY_CLEVIS = "/clevis-"
# Where no file of a disk is.
_VOLATILE = ("/run/", "/dev/", "/proc/", "/sys/", "/nix/store/")


def layout_of(host: HostConfig) -> Layout:
    """Return the disks that a host needs.

    :raises MachineError: if it declares what cannot be made, with the entry that asks for it.
    """
    later = _opened_in_stage_2(host)
    plan = DiskPlan(host, (*host.luks.values(), *(_luks(entry) for entry in later)))
    otherwise = take_disko(host, plan)
    absent = [entry.mount_point for entry in _on_devices(host) if not _add(host, plan, entry)]
    for swap in host.swap:
        if swap.device.startswith("/dev/") or "=" in swap.device:
            plan.put(swap.device, "empty" if swap.randomly_encrypted else "swap", "swapDevices")
    mounts = sorted(
        (e for e in _on_devices(host) if e.mount_point not in absent), key=lambda e: e.mount_point
    )
    disks, arrays = plan.layout()
    return Layout(
        disks=disks,
        arrays=arrays,
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
            if luks.key_file and not luks.key_file.startswith(("/dev/", _BY_CLEVIS))
        ),
        keys_on_disk=tuple(_on_disk(host, entry, mounts) for entry in later if entry.key_file),
        absent=tuple(sorted(absent)),
        otherwise=(
            *otherwise,
            *(
                f"{luks.name} is unlocked by a passphrase, not by clevis"
                for luks in host.luks.values()
                if luks.key_file.startswith(_BY_CLEVIS)
            ),
        ),
    )


def _add(host: HostConfig, plan: DiskPlan, entry: FileSystem) -> bool:
    """Take a file system; return whether the VM has it."""
    who = f'fileSystems."{entry.mount_point}"'
    try:
        kind = "ext4" if entry.fs_type == "auto" else entry.fs_type
        if kind not in MAKEABLE:
            raise cannot(host, f"{who} is {kind}, which the VM's stage 1 cannot make")
        others = [o for o in entry.options if o.startswith("device=")]
        if kind == "btrfs" and others:
            raise cannot(host, f"{who} is btrfs on several devices ({others[0]})")
        named = [o.partition("=")[2].strip("/") for o in entry.options if o.startswith("subvol=")]
        plan.put(entry.device or "", kind, who, *named)
    except MachineError:
        if _MAY_BE_ABSENT & set(entry.options):
            return False
        raise
    return True


def _opened_in_stage_2(host: HostConfig) -> Sequence[CrypttabEntry]:
    """Return the LUKS devices of crypttab that have to be there."""
    return [
        entry
        for entry in crypttab_entries(host.crypttab)
        if entry.is_luks and not _MAY_BE_ABSENT & set(entry.options)
    ]


def _on_disk(host: HostConfig, entry: CrypttabEntry, mounts: Sequence[FileSystem]) -> str:
    """Return where a key file lies once what is bound is followed to its source.

    :raises MachineError: if that is on no disk.
    """
    path = entry.key_file
    bound = [
        e
        for e in host.file_systems.values()
        if {"bind", "rbind"} & set(e.options) and e.device and path.startswith(f"{e.mount_point}/")
    ]
    if bound:
        nearest = max(bound, key=lambda e: len(e.mount_point))
        path = f"{nearest.device}{path.removeprefix(nearest.mount_point)}"
    if not path.startswith("/") or path.startswith(_VOLATILE) or not _is_below(path, mounts):
        raise cannot(
            host,
            f"crypttab unlocks {entry.name} by {entry.key_file}, which lies on none of its disks",
            "let the VM ask for a passphrase (none in place of the file)",
        )
    return path


def _is_below(path: str, mounts: Sequence[FileSystem]) -> bool:
    return any(path.startswith(f"{mount.mount_point.rstrip('/')}/") for mount in mounts)


def _luks(entry: CrypttabEntry) -> LuksDevice:
    return LuksDevice(
        name=entry.name,
        device=entry.device,
        headless=entry.is_headless and not entry.key_file,
        options=entry.options,
    )


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
