"""A picture of a machine's screen."""

from __future__ import annotations

import re
import struct
import zlib
from typing import Self

import msgspec

__all__ = ["Picture"]

# Portable pixmap, netpbm's ppm(5), as QEMU writes it.
_PPM = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS, _RGB = 8, 2
_MOST_STEPS = 8


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of pixels from the top, three bytes each: red, green, blue."""

    width: int
    height: int
    pixels: bytes

    @classmethod
    def from_ppm(cls, data: bytes) -> Self:
        """Read a portable pixmap of 8 bits a colour.

        :raises ValueError: if it is none, or not whole.
        """
        head = _PPM.match(data)
        if head is None:
            raise ValueError(f"no portable pixmap: it begins with {data[:16]!r}")
        width, height = int(head[1]), int(head[2])
        pixels = data[head.end() : head.end() + 3 * width * height]
        if not pixels or len(pixels) != 3 * width * height:
            raise ValueError(f"{len(pixels)} bytes are no {width} by {height} pixels")
        return cls(width=width, height=height, pixels=pixels)

    def png(self) -> bytes:
        """Write it as PNG (RFC 2083)."""
        line = 3 * self.width
        rows = b"".join(
            b"\0" + self.pixels[at : at + line] for at in range(0, len(self.pixels), line)
        )
        head = struct.pack(">IIBBBBB", self.width, self.height, _BITS, _RGB, 0, 0, 0)
        return (
            _SIGNATURE
            + _chunk(b"IHDR", head)
            + _chunk(b"IDAT", zlib.compress(rows))
            + _chunk(b"IEND", b"")
        )

    def shrunk(self, step: int) -> Picture:
        """Return every so many pixels of every so many rows."""
        line = 3 * self.width
        rows = [
            _every(self.pixels[at : at + line], step)
            for at in range(0, len(self.pixels), line * step)
        ]
        return Picture(width=len(rows[0]) // 3, height=len(rows), pixels=b"".join(rows))

    def png_of_at_most(self, size: int) -> bytes:
        """Return a PNG of at most `size` bytes, of fewer pixels where it takes that; ``b""`` where
        not even an eighth of them fits.
        """
        for step in range(1, _MOST_STEPS + 1):
            made = (self if step == 1 else self.shrunk(step)).png()
            if len(made) <= size:
                return made
        return b""


def _every(row: bytes, step: int) -> bytes:
    kept = bytearray(3 * len(row[:: 3 * step]))
    for colour in range(3):
        kept[colour::3] = row[colour :: 3 * step]
    return bytes(kept)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
