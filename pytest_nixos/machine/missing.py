"""What the host's machine lacks: file systems, swap and devices that its config names and that are
not there, found before the boot.

``build-vm`` replaces a host's file systems by a disk of its own and drops its swap, LUKS devices
and pools (nixpkgs ``qemu-vm.nix``: ``fileSystems``, ``swapDevices``, ``boot.initrd.luks.devices``
by ``mkVMOverride``); systemd in a container passes over every device of its fstab (systemd
``fstab-generator.c``). Commands of stage 1 that ask for such a device stay, and wait for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pytest_nixos.nix.config.declared import FileSystem
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import Unit

__all__ = ["missing_in_machine"]

# The machine's own: what it boots from, and what needs no disk.
_PROVIDED = ("/", "/nix", "/nix/store", "/boot", "/efi", "/proc", "/sys", "/dev", "/run", "/tmp")  # noqa: S108 - mount points of a guest
_BOOT = ("/boot/", "/efi/")
_DISKLESS = frozenset({"tmpfs", "ramfs", "proc", "sysfs", "devpts", "overlay", "9p", "virtiofs"})
_DEVICE = re.compile(
    r"/dev/(?:disk/by-[a-z]+|mapper|zvol|md)/[\w.:@+%-]+|/dev/(?:sd|vd|xvd|hd|nvme)[\w]+"
)
_POOL = re.compile(r"\bz(?:fs|pool)\s+(?:rollback|import)\b(?:\s+-\S+)*\s+([A-Za-z][\w./:-]*)")
# The disk that build-vm makes, by the names that it has.
_OWN_DISK = ("/dev/disk/by-label/nixos", "/dev/vda", "/dev/disk/by-label/ESP")
# What is plugged into a real host: serial adapters, cameras, sound cards, GPUs, Bluetooth and Wi-Fi.
_HARDWARE = re.compile(
    r"/dev/(?:tty(?:USB|ACM)\d|serial/by-|video\d|media\d|snd/|nvidia|kfd|hidraw|bus/usb/|spidev|gpiochip|lp\d|cdc-wdm|apex)"
    r"|/sys/subsystem/(?:bluetooth/devices/hci|net/devices/wl)"
)
_MOST = 3
_PATH_SETTINGS = {
    "Unit": ("RequiresMountsFor", "WantsMountsFor"),
    "Service": (
        *("WorkingDirectory", "ReadWritePaths", "ReadOnlyPaths", "BindPaths", "BindReadOnlyPaths"),
        *("RootDirectory", "ExecStart", "ExecStartPre", "Environment"),
    ),
}


def missing_in_machine(host: HostConfig, *, machine: str) -> str:
    """Say on one line what the host declares and its machine lacks, and which services write to the
    root disk for it; ``""`` if it lacks nothing.

    :param machine: as people call it: ``VM`` or ``container``.
    """
    mounts = _absent_mounts(host, in_container=machine == "container")
    swap = _absent_swap(host, in_container=machine == "container")
    luks = [] if machine == "container" or host.own_disks else _luks_words(host)
    parts = [*_mount_words(mounts), *swap, *luks]
    told = ""
    if parts:
        one = len(parts) == 1 and (parts[0].startswith("a ") or len(mounts) == 1)
        verb = "is" if one else "are"
        told = f"{_and(parts)} {verb} not in the {machine}"
        users = _services_below(host.units, list(mounts))
        if users:
            runs = "runs" if len(users) == 1 else "run"
            told += f"; {_short(users)} {runs} on the root disk"
    waiting = _waiting_for_hardware(host)
    if waiting:
        verb = "waits" if len(waiting) == 1 else "wait"
        wait = f"{_short(waiting)} {verb} for hardware that the {machine} lacks"
        told = f"{told}; {wait}" if told else wait
    asked = [] if machine == "container" or host.own_disks else _asked_in_stage_1(host)
    if asked:
        wait = f"stage 1 asks for {_short(asked)}, which the {machine} lacks, and may wait for it"
        told = f"{told}; {wait}" if told else wait
    return told


def _absent_mounts(host: HostConfig, *, in_container: bool) -> Mapping[str, FileSystem]:
    """Return the file systems that the host declares and its machine does not mount."""
    has = host.machine_file_systems
    absent: dict[str, FileSystem] = {}
    for point, entry in sorted(host.file_systems.items()):
        if point in _PROVIDED or point.startswith(_BOOT) or entry.fs_type in _DISKLESS:
            continue
        own = has.get(point) if has is not None else entry
        source = entry.device or ""
        beneath_absent = "bind" in entry.options and any(_below(source, other) for other in absent)
        is_device = source.startswith(("/dev/", "LABEL=", "UUID=")) or entry.fs_type == "zfs"
        if own is None or beneath_absent or (in_container and is_device):
            absent[point] = entry
    # A directory that is bound may sort before the disk that it lies on.
    for point, entry in sorted(host.file_systems.items()):
        bound = "bind" in entry.options and any(_below(entry.device or "", o) for o in absent)
        if bound and point not in _PROVIDED:
            absent[point] = entry
    return absent


def _absent_swap(host: HostConfig, *, in_container: bool) -> list[str]:
    # systemd in a container activates no swap at all.
    has = () if in_container else host.machine_swap_devices
    if has is None:
        return []
    absent = [d for d in host.swap_devices if d not in has and not d.startswith("/dev/zram")]
    files = [d for d in absent if not d.startswith(("/dev/", "LABEL=", "UUID="))]
    devices = len(absent) - len(files)
    return [
        *([_counted(len(files), "swap file")] if files else []),
        *([_counted(devices, "swap device")] if devices else []),
    ]


def _mount_words(mounts: Mapping[str, FileSystem]) -> list[str]:
    bound = {p: e for p, e in mounts.items() if "bind" in e.options}
    disks = [point for point in mounts if point not in bound]
    words = list(disks) if len(disks) <= _MOST + 1 else [_short(disks)]
    if bound:
        sources = sorted({_top(entry.device or "") for entry in bound.values()})
        words.append(f"{_counted(len(bound), 'bind mount')} of {_short(sources)}")
    return words


def _luks_words(host: HostConfig) -> list[str]:
    names = host.luks_devices
    return [f"{_counted(len(names), 'LUKS device')} ({_short(names)})"] if names else []


def _asked_in_stage_1(host: HostConfig) -> list[str]:
    """Return the devices and pools that commands and units of stage 1 name and the VM has not."""
    text = host.initrd_text
    found = [*_DEVICE.findall(text), *_POOL.findall(text)]
    found += [_device_of(unit) for unit in re.findall(r"dev-[\w\\.:@-]+\.device", text)]
    return [d for d in dict.fromkeys(found) if not d.startswith(_OWN_DISK)]


def _waiting_for_hardware(host: HostConfig) -> list[str]:
    """Return the units that need a device which no machine of ours has, and that device."""
    return [
        f"{name} ({_device_of(device)})"
        for name, unit in sorted(host.units.items())
        if unit.enabled and unit.wanted_by and "@." not in name
        for device in _needed_devices(unit)
        if _HARDWARE.match(_device_of(device))
    ]


def _needed_devices(unit: Unit) -> Iterable[str]:
    """Return the device units without which a unit does not start (systemd.unit(5))."""
    texts = (t for key in ("Requires", "BindsTo", "Requisite") for t in unit.setting("Unit", key))
    return dict.fromkeys(name for t in texts for name in t.split() if name.endswith(".device"))


def _device_of(unit: str) -> str:
    """Return the path of a device unit (systemd-escape(1))."""
    path = "/" + unit.removesuffix(".device").replace("-", "/")
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), path)


def _services_below(units: Mapping[str, Unit], points: Sequence[str]) -> list[str]:
    """Return the services whose settings name a path below one of the mount points."""
    return [
        name
        for name, unit in sorted(units.items())
        if unit.enabled
        and name.endswith(".service")
        and "@." not in name
        and any(_names(text, point) for text in _paths(unit) for point in points)
    ]


def _paths(unit: Unit) -> Iterable[str]:
    for section, keys in _PATH_SETTINGS.items():
        for key in keys:
            yield from unit.setting(section, key)


def _names(text: str, point: str) -> bool:
    return re.search(rf"(?:^|[\s=:\"'-]){re.escape(point)}(?:/|$|[\s:\"'])", text) is not None


def _below(path: str, point: str) -> bool:
    return path == point or path.startswith(f"{point.rstrip('/')}/")


def _top(path: str) -> str:
    return "/" + path.strip("/").split("/")[0]


def _counted(count: int, what: str) -> str:
    return f"a {what}" if count == 1 else f"{count} {what}s"


def _short(names: Sequence[str]) -> str:
    more = len(names) - _MOST
    shown = [*names[:_MOST], *([f"{more} more"] if more > 0 else [])]
    return _and(shown)


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
