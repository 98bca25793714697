"""What a disk holds when its power is cut: a log of QEMU's ``blklogwrites`` applied to an image of
before, without what the guest had not flushed.

The log's format is that of Linux' dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst):
a super block, then entries of one sector, each followed by its data.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.capabilities import LostWrites

__all__ = ["replay"]

_MAGIC = 0x6A736677736872
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD = 1, 2, 4
_ALL_FLAGS = 31
# What QEMU counts in, if it is not told otherwise.
_SECTOR = 512


class _Write(msgspec.Struct, frozen=True, kw_only=True):
    """One entry.

    :param offset, size: on the disk, in bytes.
    :param place: of its data in the log.
    """

    offset: int
    size: int
    flags: int
    place: int


def replay(log: Path, image: Path, *, disk: str, survive: float, seed: int) -> LostWrites:
    """Write to an image what a disk was given up to its last flush, and by chance some of the rest.

    :param image: raw, as the disk was when the log began.
    :param survive: how much of what was not flushed reaches the disk all the same, of 1.
    :param seed: of that choice.
    :raises MachineError: if the log is none, or ends before its time.
    """
    chance = random.Random(seed)  # noqa: S311 - has to be repeatable, not secret
    with _opened(log, os.O_RDONLY) as source, _opened(image, os.O_RDWR) as target:
        entries = tuple(_entries(source, log))
        flushes = [number for number, entry in enumerate(entries) if entry.flags & _FLUSH]
        flushed = flushes[-1] if flushes else -1
        lost = kept = lost_bytes = 0
        for number, entry in enumerate(entries):
            if entry.size == 0:
                continue
            sure = number < flushed or entry.flags & _FUA
            if not sure and chance.random() >= survive:
                lost, lost_bytes = lost + 1, lost_bytes + entry.size
                continue
            kept += 1
            _apply(entry, source, target)
        return LostWrites(
            disk=disk, lost=lost, lost_bytes=lost_bytes, kept=kept, flushes=len(flushes)
        )


def _apply(entry: _Write, source: BinaryIO, target: BinaryIO) -> None:
    target.seek(entry.offset)
    if entry.flags & _DISCARD:
        # A disk may give anything for what was discarded; zeros as most do.
        target.write(bytes(entry.size))
        return
    source.seek(entry.place)
    target.write(source.read(entry.size))


def _entries(source: BinaryIO, log: Path) -> Iterator[_Write]:
    end = source.seek(0, os.SEEK_END)
    source.seek(0)
    head = source.read(_SUPER.size)
    if len(head) < _SUPER.size:
        return
    magic, version, count, sector = _SUPER.unpack(head)
    if not any(head):
        # Written at the first flush.
        magic, version, sector = _MAGIC, 1, _SECTOR
    if magic != _MAGIC or version != 1 or sector < _SECTOR:
        raise _no_log(log, f"it begins with {head[:8].hex()}")
    place, number = sector, 0
    while place + sector <= end:
        source.seek(place)
        header = source.read(sector)
        first, sectors, flags, _ = _ENTRY.unpack_from(header)
        if flags > _ALL_FLAGS or any(header[_ENTRY.size :]):
            # QEMU before 9.1 mixes up what it writes beside a request to write zeros.
            raise _no_log(log, f"entry {number} is none")
        size = sectors * sector
        data = 0 if flags & _DISCARD else size
        # What was being written when QEMU was killed.
        if place + sector + data > end or not (sectors or flags):
            break
        yield _Write(offset=first * sector, size=size, flags=flags, place=place + sector)
        place, number = place + sector + data, number + 1
    if number < count:
        raise _no_log(log, f"it has {number} of its {count} entries")


def _opened(path: Path, mode: int) -> BinaryIO:
    """Open a file in a directory that QEMU writes to, never what a link in its place leads to."""
    try:
        descriptor = os.open(path, mode | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as err:
        raise MachineError(
            f"{path}: {err.strerror}", remedy="look at the room where run directories lie ($TMPDIR)"
        ) from err
    return os.fdopen(descriptor, "rb" if mode == os.O_RDONLY else "r+b")


def _no_log(log: Path, why: str) -> MachineError:
    return MachineError(
        f"{log}: no log of QEMU's blklogwrites: {why}",
        remedy="look at the room where run directories lie ($TMPDIR)",
    )
