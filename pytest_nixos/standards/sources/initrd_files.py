"""The files of an initrd: one archive of cpio's "newc" form after the other, each as it is or
compressed.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

__all__ = ["InitrdFile", "UnreadableInitrd", "initrd_files"]

_HEADER = 110
_END = "TRAILER!!!"
#: Larger ones are programs or images.
_FILE_LIMIT = 4 * 1024 * 1024
#: What a small file may grow to when it is unpacked; the largest real one known has 400 MiB.
_UNPACKED_LIMIT = 2 * 1024 * 1024 * 1024
_PACKAGE = re.compile(
    r"^nix/store/[^/]+/(?:bin|sbin|lib|libexec|share|include)/|^(?:usr/)?(?:lib|share|bin|sbin)/"
)


class _Stream(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Seekable(_Stream, Protocol):
    def tell(self) -> int: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...


class UnreadableInitrd(Exception):
    """Why an initrd could not be read to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitrdFile:
    """One regular file; `content` is empty where it is larger than 4 MiB.

    :param name: path without a slash before it.
    :param of_package: whether it belongs to a program rather than to the host's configuration.
    """

    name: str
    content: bytes
    of_package: bool


def initrd_files(path: Path) -> Iterator[InitrdFile]:
    """Yield the regular files of an initrd.

    :raises UnreadableInitrd: where it is damaged, or compressed in a way that cannot be undone
        here.
    """
    try:
        with path.open("rb") as stream:
            yield from _archives(stream)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as err:
        raise UnreadableInitrd(str(err) or "it is cut short") from err


def _archives(stream: _Seekable) -> Iterator[InitrdFile]:
    while magic := _next_magic(stream):
        if magic.startswith(b"0707"):
            yield from _archive(stream)
        else:
            # What is compressed goes to the end: an archive behind it would have to be inside.
            yield from _archives(_Bounded(_unpacked(stream, magic)))
            return


def _next_magic(stream: _Seekable) -> bytes:
    """Skip the zeros between archives, and look at the next six bytes."""
    while True:
        start = stream.tell()
        block = stream.read(4096)
        if not block:
            return b""
        rest = block.lstrip(b"\0")
        if rest:
            stream.seek(start + len(block) - len(rest))
            magic = stream.read(6)
            stream.seek(start + len(block) - len(rest))
            return magic


def _unpacked(stream: _Seekable, magic: bytes) -> _Stream:
    source = cast("IO[bytes]", stream)  # a file, or what _Bounded makes of one
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=source)
    if magic.startswith((b"\xfd7zXZ", b"]\0\0")):
        return lzma.LZMAFile(source)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(source)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    raise UnreadableInitrd(f"it starts with {magic.hex()}, which no known compression does")


class _Bounded:
    """A stream of unpacked data that can be read forwards only, with a bound."""

    def __init__(self, source: _Stream) -> None:
        self._source = source
        self._at = 0
        self._ahead = b""
        self._last = b""

    def read(self, size: int = -1, /) -> bytes:
        """Read as many bytes as there are, up to `size`."""
        wanted = size if size >= 0 else _UNPACKED_LIMIT
        found, self._ahead = self._ahead[:wanted], self._ahead[wanted:]
        while len(found) < wanted and (
            more := self._source.read(min(wanted - len(found), 1 << 20))
        ):
            found += more
        self._at += len(found)
        if self._at > _UNPACKED_LIMIT:
            raise UnreadableInitrd("it unpacks to more than 2 GiB")
        self._last = found
        return found

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go back within what was read last."""
        back = self._at - offset
        if whence or not 0 <= back <= len(self._last):
            raise io.UnsupportedOperation("forwards only")
        self._ahead = self._last[len(self._last) - back :] + self._ahead
        self._last = self._last[: len(self._last) - back]
        self._at = offset
        return offset


def _archive(stream: _Stream) -> Iterator[InitrdFile]:
    while True:
        header = _exactly(stream, _HEADER)
        if header[:6] not in (b"070701", b"070702"):
            raise UnreadableInitrd("an entry of its archive does not start as one")
        fields = [int(header[6 + n * 8 : 14 + n * 8], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        padded = name_size + (-(_HEADER + name_size) % 4)
        name = _exactly(stream, padded)[: name_size - 1].decode(errors="replace")
        if name == _END:
            return
        content = _content(stream, size)
        if (mode & 0o170000) == 0o100000:
            name = name.lstrip("./")
            yield InitrdFile(name=name, content=content, of_package=bool(_PACKAGE.match(name)))


def _content(stream: _Stream, size: int) -> bytes:
    padding = -size % 4
    if size <= _FILE_LIMIT:
        return _exactly(stream, size + padding)[:size]
    left = size + padding
    while left:
        left -= len(_exactly(stream, min(left, 1 << 20)))
    return b""


def _exactly(stream: _Stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise UnreadableInitrd("it is cut short")
    return data
