"""Device paths and what has to be found there, put together from the options that name them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec.structs import replace

from pytest_nixos.machine.disks.arrays import (
    DeclaredArray,
    arrays_of,
    fewest_members,
    undeclared_array,
)
from pytest_nixos.machine.disks.placing import (
    Place,
    cannot,
    check_device,
    is_plain,
    named_volume,
    placed,
    scsi_names,
)
from pytest_nixos.machine.disks.tpm import bound_pcrs
from pytest_nixos.machine.disks.volumes import Array, Disk, Volume
from pytest_nixos.nix.config.declared import LuksDevice
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["DiskPlan"]

_LOGICAL = re.compile(r"/dev/(?!disk/|mapper/|md/|md\d|zvol/)([\w.+-]+)/([\w.+-]+)")
_MAPPED = re.compile(r"/dev/mapper/((?:[\w.+]|--)+)-((?:[\w.+]|--)+)")


class DiskPlan:
    """What a host's disks have to hold, until it is known where.

    :param luks: LUKS devices that anything opens.
    """

    def __init__(self, host: HostConfig, luks: Iterable[LuksDevice]) -> None:
        self._host = host
        self._luks = {f"/dev/mapper/{d.name}": d for d in luks}
        self._found: dict[str, Volume] = {}
        self._groups: dict[str, dict[str, Volume]] = {}
        self._group_devices: dict[str, list[str]] = {}
        self._places: dict[str, Place] = {}
        self._declared = arrays_of(host.swraid.conf) if host.swraid else ()
        self._arrays: dict[str, DeclaredArray] = {}

    def put(self, device: str, kind: str, who: str, *subvolumes: str, label: str = "") -> None:
        """Take what has to be found at a device.

        :param who: the option that names it.
        :param label: of the file system, where the path does not say it.
        :raises MachineError: if nothing can be there, or something else has to.
        """
        logical = self._logical(device)
        place = self._groups.setdefault(logical[0], {}) if logical else self._found
        key = logical[1] if logical else self._array_key(device, who) or device
        if not logical and not {key, device} & {*self._arrays, *self._luks, *self._places}:
            check_device(self._host, device, who)
        before = place.get(key)
        if before is not None and before.kind != kind:
            raise cannot(self._host, f"{device} is {before.kind} and, by {who}, {kind}")
        known = before.subvolumes if before else ()
        wanted = tuple(s for s in subvolumes if s and s not in known)
        volume = named_volume(device, kind)
        place[key] = replace(
            volume,
            label=volume.label or label or (before.label if before else ""),
            subvolumes=(*known, *wanted),
        )

    def place(self, device: str, place: Place) -> None:
        """Say where the partition of a path lies."""
        self._places[device] = place

    def open(self, luks: LuksDevice) -> None:
        """Take a LUKS device that is not known yet."""
        self._luks.setdefault(f"/dev/mapper/{luks.name}", luks)

    def group_on(self, group: str, device: str) -> None:
        """Say that a group of volumes lies on a device, as on those that were said before."""
        self._group_devices.setdefault(group, []).append(device)
        self._groups.setdefault(group, {})

    def array(self, declared: DeclaredArray) -> None:
        """Take an array with the devices that it is made of."""
        self._declared = (*self._declared, declared)
        self._array_key(declared.device, f"the array {declared.name}")

    def layout(self) -> tuple[tuple[Disk, ...], tuple[Array, ...]]:
        """Return the disks on which all that lies, and the arrays of them.

        :raises MachineError: if it cannot lie on any.
        """
        self._wrap_luks(d for d in self._luks.values() if self._logical(d.device))
        self._wrap_groups()
        self._wrap_luks(d for d in self._luks.values() if not self._logical(d.device))
        arrays = tuple(self._array(a, self._found.pop(key)) for key, a in self._taken_arrays())
        return placed(self._host, self._found, self._places), arrays

    def _array_key(self, device: str, who: str) -> str:
        """Return the device of the array that a path names, ``""`` for another path."""
        declared = next((a for a in self._declared if device in a.paths), None)
        if declared is None:
            declared = undeclared_array(device)
        if declared is None:
            return ""
        if self._host.swraid is not None and not self._host.swraid.enable:
            raise cannot(
                self._host,
                f"{who} names the array {device}, and boot.swraid.enable is off, so that nothing assembles it",
                "set boot.swraid.enable = true",
            )
        key = declared.device or device
        self._arrays.setdefault(key, replace(declared, device=key))
        return key

    def _taken_arrays(self) -> list[tuple[str, DeclaredArray]]:
        """Return the arrays that hold something, and those with members that hold nothing."""
        for key in self._arrays:
            self._found.setdefault(key, Volume(kind="empty"))
        return list(self._arrays.items())

    def _array(self, declared: DeclaredArray, volume: Volume) -> Array:
        fewest = fewest_members(declared.level)
        if not fewest:
            raise cannot(self._host, f"the array {declared.device} has the level {declared.level}")
        if declared.count < fewest:
            raise cannot(
                self._host,
                f"the array {declared.device} has {declared.count} members; {declared.level} needs {fewest}",
                "name its members, or another level, in boot.swraid.mdadmConf",
            )
        member = Volume(kind="member", name=declared.device, room_mib=volume.size_mib + 16)
        for device in declared.members or self._new_members(declared):
            if device not in self._places:
                check_device(self._host, device, f"the array {declared.device}")
            if device in self._found:
                raise cannot(
                    self._host,
                    f"{device} is {self._found[device].kind} and a member of {declared.device}",
                )
            self._found[device] = member
        return Array(
            device=declared.device,
            volume=volume,
            name=declared.name or declared.device.rpartition("/")[2].removeprefix("md"),
            level=declared.level,
            metadata=declared.metadata,
            uuid=declared.uuid,
        )

    def _new_members(self, declared: DeclaredArray) -> list[str]:
        """Return a partition of the first disk, and one of each further disk that nothing names."""
        named = {is_plain(device) for device in self._found}
        short = declared.device.rpartition("/")[2]
        devices = [f"PARTLABEL=pytest-nixos-{short}"]
        free = [n for n in scsi_names() if n not in named]
        for disk in free[: declared.count - 1]:
            used = [p.number for p in self._places.values() if p.disk == disk]
            device = f"PARTLABEL=pytest-nixos-{short}-{disk}"
            number = max(used, default=0) + 1
            self._places[device] = Place(
                disk=disk, number=number, name=f"pytest-nixos-{short}-{disk}"
            )
            devices.append(device)
        return devices

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
        """Put each group of volumes where it is said to lie; else on the LUKS device or the array
        that nothing else uses, or on a partition.
        """
        for group, volumes in self._groups.items():
            devices = self._group_devices.get(group) or [self._room_for(group)]
            keys = [self._array_key(d, f"the group {group}") or d for d in devices]
            self._found[keys[0]] = Volume(kind="lvm", name=group, inside=dict(volumes))
            for device in keys[1:]:
                self._found[device] = Volume(kind="further", name=group)

    def _room_for(self, group: str) -> str:
        unused = [
            *(
                path
                for path, luks in self._luks.items()
                if path not in self._found and not self._logical(luks.device)
            ),
            *(a.device for a in self._declared if a.device and a.device not in self._found),
        ]
        return unused[0] if unused else f"PARTLABEL=pytest-nixos-{group}"

    def _wrap_luks(self, devices: Iterable[LuksDevice]) -> None:
        """Put what lies on opened LUKS devices on those that are closed, innermost first."""
        left = {f"/dev/mapper/{luks.name}": luks for luks in devices}
        while left:
            opened = next(
                (d for d in left if all(other.device != d for other in left.values())), None
            )
            if opened is None:
                raise cannot(self._host, f"LUKS devices lie on each other: {', '.join(left)}")
            luks = left.pop(opened)
            self._check_luks(luks)
            inner = self._found.pop(opened, Volume(kind="empty"))
            volume = replace(
                named_volume(luks.device, "luks"),
                name=luks.name,
                inside={"": inner},
                pcrs=bound_pcrs(self._host, luks.name, luks.options),
            )
            self._found_or_group(luks)[self._key(luks)] = volume

    def _key(self, luks: LuksDevice) -> str:
        """Return by what a closed LUKS device is known.

        :raises MachineError: if nothing in a VM can have its path.
        """
        if logical := self._logical(luks.device):
            return logical[1]
        key = self._array_key(luks.device, f"the LUKS device {luks.name}") or luks.device
        if not {key} & {*self._luks, *self._arrays, *self._places}:
            check_device(self._host, key, f"boot.initrd.luks.devices.{luks.name}")
        return key

    def _found_or_group(self, luks: LuksDevice) -> dict[str, Volume]:
        logical = self._logical(luks.device)
        return self._groups.setdefault(logical[0], {}) if logical else self._found

    def _check_luks(self, luks: LuksDevice) -> None:
        if luks.header:
            raise cannot(
                self._host,
                f"the LUKS device {luks.name} has its header elsewhere ({luks.header})",
            )
        if luks.key_file.startswith("/dev/"):
            raise cannot(
                self._host,
                f"the LUKS device {luks.name} is unlocked by {luks.key_file}, a device that the VM lacks",
            )
        if luks.headless and not bound_pcrs(self._host, luks.name, luks.options):
            raise cannot(
                self._host,
                f"the LUKS device {luks.name} is unlocked by none of its VM: nobody may be asked"
                " (headless), and it has no key file",
                "give it a key file or a TPM (tpm2-device=auto with systemd's stage 1), or leave headless out",
            )
