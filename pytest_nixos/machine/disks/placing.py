"""Where what a host names lies: on which disk, in which partition."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_lowercase

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.disks.volumes import Disk, Partition, Volume
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["Place", "cannot", "check_device", "is_plain", "named_volume", "placed"]

_NAMED = re.compile(r"(?:/dev/disk/by-)?(label|uuid|partlabel|partuuid)[/=](.+)", re.IGNORECASE)
_PLAIN = re.compile(r"/dev/(vda|sd[a-z]|nvme\d+n1)(?:p?(\d+))?")
_FIRST_DISK = "vda"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that the host itself gives a place.

    :param disk: by the kernel's name.
    """

    disk: str
    number: int
    name: str
    uuid: str = ""
    guid: str = ""


def placed(
    host: HostConfig, found: Mapping[str, Volume], places: Mapping[str, Place]
) -> tuple[Disk, ...]:
    """Return the disks on which volumes lie.

    :param found: volume by the path that the host knows its device by.
    :param places: of the paths whose place is known; the others get one.
    :raises MachineError: if two cannot lie where they are said to.
    """
    disks: dict[str, Disk] = {}
    taken: dict[str, dict[int, Partition]] = {_FIRST_DISK: {}}
    for device, volume in found.items():
        place, plain = places.get(device), _PLAIN.fullmatch(device)
        if place is not None:
            taken.setdefault(place.disk, {})[place.number] = Partition(
                number=place.number,
                volume=volume,
                name=place.name,
                uuid=place.uuid,
                guid=place.guid,
            )
        elif plain is not None and plain[2] is None:
            disks[plain[1]] = Disk(name=plain[1], whole=volume)
        elif plain is not None:
            number = int(plain[2])
            taken.setdefault(plain[1], {})[number] = Partition(number=number, volume=volume)
    for device, volume in found.items():
        if device in places or _PLAIN.fullmatch(device):
            continue
        by = _NAMED.fullmatch(device)
        kind, value = (by[1].lower(), unescaped(by[2])) if by else ("", "")
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
            raise cannot(host, f"/dev/{name} holds a file system and has partitions")
        disks[name] = Disk(name=name, partitions=tuple(numbered[n] for n in sorted(numbered)))
    return (
        *([disks[_FIRST_DISK]] if _FIRST_DISK in disks else []),
        *_without_gaps(disks, scsi_names()),
        *_without_gaps(disks, [f"nvme{number}n1" for number in range(16)]),
    )


def scsi_names() -> list[str]:
    """Return the names of SCSI disks, in the kernel's order."""
    return [f"sd{letter}" for letter in ascii_lowercase]


def _without_gaps(disks: Mapping[str, Disk], names: Sequence[str]) -> Sequence[Disk]:
    """Return the disks of one bus, with empty ones between them: the kernel counts them."""
    last = max((n for n, name in enumerate(names) if name in disks), default=-1)
    return [disks.get(name, Disk(name=name)) for name in names[: last + 1]]


def named_volume(device: str, kind: str) -> Volume:
    """Return a volume with the label or UUID that a path names it by."""
    by = _NAMED.fullmatch(device)
    if by is None or by[1].lower().startswith("part"):
        return Volume(kind=kind)
    value = unescaped(by[2])
    is_label = by[1].lower() == "label"
    return Volume(kind=kind, label=value if is_label else "", uuid="" if is_label else value)


def is_plain(device: str) -> str:
    """Return the disk that a path names by the kernel's name, ``""`` for another path."""
    plain = _PLAIN.fullmatch(device)
    return plain[1] if plain else ""


def check_device(host: HostConfig, device: str, who: str) -> None:
    """Refuse a path that nothing in a VM can have.

    :raises MachineError: with the option that names it.
    """
    if not _NAMED.fullmatch(device) and not _PLAIN.fullmatch(device):
        raise cannot(host, f"{who} names {device or 'no device'}, which no disk of a VM can be")


def cannot(host: HostConfig, what: str, remedy: str = "") -> MachineError:
    """Return the error of a host whose disks cannot be made.

    :param remedy: what would help, before what always does.
    """
    before = f"{remedy}; or " if remedy else ""
    return MachineError(
        f"{host.name}: its own disks cannot be made: {what}",
        remedy=f"{before}run it with the disk of build-vm (--nixos-disks default), or judge a specialisation of it"
        f" that declares others ({host.name}^NAME); what can be made is in 'Hosts with their own disks'",
    )


def unescaped(text: str) -> str:
    r"""Return a label as it is: udev writes ``a\x20b`` (systemd ``encode_devnode_name``)."""
    return re.sub(r"\\x([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
