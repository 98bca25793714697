"""Arrays of mdraid as ``boot.swraid.mdadmConf`` declares them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

__all__ = ["DeclaredArray", "arrays_of", "fewest_members", "undeclared_array"]

#: A path by which an array is named (mdadm's 63-md-raid-arrays.rules).
_DEVICE = re.compile(r"/dev/md(?:/(.+)|_?(\d+))|/dev/disk/by-id/md-(name|uuid)-(.+)")
# mdadm(8), "--raid-devices": what each level needs at least.
_FEWEST = {"raid0": 1, "raid1": 1, "raid4": 2, "raid5": 2, "raid6": 4, "raid10": 2, "linear": 1}


class DeclaredArray(msgspec.Struct, frozen=True, kw_only=True):
    """One ``ARRAY`` line of mdadm.conf(5), or an array that only a path names.

    :param device: ``""`` where the line gives none.
    :param name: in the superblock, with the host's name before it where it has one.
    :param members: devices that the line names; ``count`` of them where it only counts.
    """

    device: str
    name: str = ""
    uuid: str = ""
    level: str = "raid1"
    metadata: str = "1.2"
    members: tuple[str, ...] = ()
    count: int = 2

    @property
    def paths(self) -> frozenset[str]:
        """All paths by which it may be named."""
        short = self.name.rpartition(":")[2]
        by_name = {f"/dev/disk/by-id/md-name-{self.name}", f"/dev/md/{short}"} if short else set()
        by_uuid = {f"/dev/disk/by-id/md-uuid-{self.uuid}"} if self.uuid else set()
        return frozenset({self.device, *by_name, *by_uuid} - {""})


def arrays_of(text: str) -> tuple[DeclaredArray, ...]:
    """Read the arrays of a mdadm.conf(5)."""
    return tuple(
        _array(words)
        for words in _lines(text)
        if words[0].upper() == "ARRAY" and "<ignore>" not in words
    )


def undeclared_array(device: str) -> DeclaredArray | None:
    """Return the array that a path names where no line declares it, ``None`` for another device."""
    found = _DEVICE.fullmatch(device)
    if found is None:
        return None
    if found[3] == "uuid":
        return DeclaredArray(device=device, uuid=found[4], name="pytest-nixos")
    name = found[1] or found[2] or found[4]
    return DeclaredArray(device=device, name=name)


def fewest_members(level: str) -> int:
    """Return how many members an array of a level has at least, ``0`` for one that is not known."""
    return _FEWEST.get(level, 0)


def _lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each line; one that begins with a blank goes on with the one before."""
    whole: list[str] = []
    for raw in text.splitlines():
        line = raw.partition("#")[0]
        if line[:1].isspace() and whole:
            whole += line.split()
            continue
        if whole:
            yield whole
        whole = line.split()
    if whole:
        yield whole


def _array(words: list[str]) -> DeclaredArray:
    plain = [word for word in words[1:] if "=" not in word]
    given = {
        key.lower(): value for key, _, value in (word.partition("=") for word in words[1:]) if value
    }
    members = tuple(device for device in given.get("devices", "").split(",") if device)
    device = plain[0] if plain else ""
    if device and not device.startswith("/"):
        device = (
            f"/dev/{device}"
            if re.fullmatch(r"md_?\d+", device)
            else f"/dev/md/{device.removeprefix('md/')}"
        )
    counted = given.get("num-devices", "")
    level = given.get("level", "raid1")
    return DeclaredArray(
        device=device,
        name=given.get("name", ""),
        uuid=given.get("uuid", ""),
        level=f"raid{level}" if level.isdigit() else level,
        metadata=given.get("metadata", "1.2"),
        members=members,
        count=int(counted) if counted.isdigit() else len(members) or 2,
    )
