"""Files that must stay as they were written: how that is noticed without reading them, and with.

A file whose size, inode and times are as recorded has not been written to: the kernel sets the
change time, and no program can choose it. Any other file of that name is read and compared by its
SHA-256, so a cache that was copied or restored from an archive is accepted, and one that somebody
changed is not. What neither finds is a disk that returns other bytes than were written while the
times stay; :meth:`SealedFile.read_check` reads in any case.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from pytest_nixos.local.sparse_file import data_extents

__all__ = ["SealedFile"]

_BLOCK = 1 << 16


class SealedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a file was when it was sealed.

    :param name: path below the snapshot's directory.
    :param size: bytes, holes included.
    :param sha256: of the blocks that are not zero, each behind its offset.
    :param stamp: inode, modification and change time in ns.
    """

    name: str
    size: int
    sha256: str
    stamp: tuple[int, int, int]

    @classmethod
    def seal(cls, directory: Path, name: str) -> Self:
        """Read a file of `directory` and record what it is."""
        path = directory / name
        path.chmod(0o600)
        digest = _digest(path)
        state = path.stat()
        return cls(name=name, size=state.st_size, sha256=digest, stamp=_stamp(state))

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Self:
        """Read what :meth:`as_json` gave."""
        inode, modified, changed = data["stamp"]
        return cls(
            name=str(data["name"]),
            size=int(data["size"]),
            sha256=str(data["sha256"]),
            stamp=(int(inode), int(modified), int(changed)),
        )

    def as_json(self) -> dict[str, Any]:
        """Return what :meth:`parse` reads."""
        return {
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
            "stamp": list(self.stamp),
        }

    def check(self, directory: Path) -> str:
        """Say what is wrong with the file, ``""`` if it is as it was; it is read only if it was
        touched.
        """
        refusal, state = self._look(directory)
        if refusal or state is None or _stamp(state) == self.stamp:
            return refusal
        return self.read_check(directory)

    def read_check(self, directory: Path) -> str:
        """Say what is wrong with the file, ``""`` if it is as it was; it is read."""
        refusal, _ = self._look(directory)
        if refusal:
            return refusal
        if _digest(directory / self.name) != self.sha256:
            return f"{self.name} has changed since it was saved"
        return ""

    def _look(self, directory: Path) -> tuple[str, os.stat_result | None]:
        try:
            state = (directory / self.name).lstat()
        except OSError as err:
            return f"{self.name}: {err.strerror}", None
        if not stat.S_ISREG(state.st_mode):
            return f"{self.name} is no regular file", None
        if state.st_uid != os.geteuid():
            return f"{self.name} belongs to user {state.st_uid}", None
        if state.st_mode & 0o077:
            return f"{self.name} is open to other users (mode {state.st_mode & 0o777:o})", None
        if state.st_size != self.size:
            return f"{self.name} has {state.st_size} bytes, {self.size} were saved", None
        return "", state


def _stamp(state: os.stat_result) -> tuple[int, int, int]:
    return state.st_ino, state.st_mtime_ns, state.st_ctime_ns


def _digest(path: Path) -> str:
    """Hash where data lies and what it is; a block of zeros counts as a hole, so that a copy has
    the same digest.
    """
    digest = hashlib.sha256()
    zeros = bytes(_BLOCK)
    with path.open("rb", buffering=0) as file:
        for at in _data_blocks(file.fileno()):
            block = os.pread(file.fileno(), _BLOCK, at)
            if block != zeros[: len(block)]:
                digest.update(at.to_bytes(8, "big"))
                digest.update(block)
    return digest.hexdigest()


def _data_blocks(descriptor: int) -> Iterator[int]:
    """Offsets of the blocks that hold data."""
    at = 0
    for start, end in data_extents(descriptor):
        yield from range(max(start - start % _BLOCK, at), end, _BLOCK)
        at = end + -end % _BLOCK
