"""Files with holes: where their data lies, and how they are moved without filling the holes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.local.dirs import make_private

__all__ = ["data_extents", "move_sparse"]

_CHUNK = 1 << 20


def data_extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Return begin and end of what holds data, as far as the file system knows (lseek(2),
    ``SEEK_DATA``).
    """
    size, at = os.fstat(descriptor).st_size, 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole is left
            return
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, at


def move_sparse(source: Path, target: Path) -> None:
    """Move a file, to another file system too; the target's directory is made.

    :raises OSError: if there is no room; the source is still there.
    """
    make_private(target.parent)
    try:
        source.rename(target)
    except OSError:
        _copy(source, target)
        source.unlink()


def _copy(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as from_file, target.open("xb", buffering=0) as to_file:
        os.truncate(to_file.fileno(), os.fstat(from_file.fileno()).st_size)
        for start, end in data_extents(from_file.fileno()):
            at = start
            while at < end:
                piece = os.pread(from_file.fileno(), min(_CHUNK, end - at), at)
                at += os.pwrite(to_file.fileno(), piece, at)
