"""Pictures of screens: read as QEMU writes them, written as PNG, made smaller."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from pytest_nixos.machine.picture import Picture

RED, BLUE = b"\xff\0\0", b"\0\0\xff"


def decoded(png: bytes) -> tuple[int, int, bytes]:
    """Read a PNG of unfiltered rows, each chunk by its own checksum."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size : at + 12 + size])[0] == zlib.crc32(
            kind + data
        )
        chunks[kind], at = data, at + 12 + size
    width, height, bits, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (bits, colours) == (8, 2)
    rows = zlib.decompress(chunks[b"IDAT"])
    line = 1 + 3 * width
    assert len(rows) == line * height
    assert not any(rows[at] for at in range(0, len(rows), line))
    return width, height, b"".join(rows[at + 1 : at + line] for at in range(0, len(rows), line))


def test_a_pixmap_becomes_a_png_of_the_same_pixels() -> None:
    picture = Picture.from_ppm(b"P6\n2 2\n255\n" + RED + BLUE + BLUE + RED)

    assert decoded(picture.png()) == (2, 2, RED + BLUE + BLUE + RED)


@pytest.mark.parametrize("data", [b"", b"P5\n1 1\n255\n\0", b"P6\n2 2\n255\nshort", b"P6 0 0 255 "])
def test_what_is_no_pixmap_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no portable pixmap|are no"):
        Picture.from_ppm(data)


@pytest.mark.parametrize(("width", "height", "shrunk"), [(4, 2, (2, 1)), (5, 3, (3, 2)), (1, 1, (1, 1))])  # fmt: skip
def test_every_other_pixel_is_left(width: int, height: int, shrunk: tuple[int, int]) -> None:
    row = b"".join(bytes([x, x, x]) for x in range(width))
    half = Picture(width=width, height=height, pixels=row * height).shrunk(2)

    assert (half.width, half.height) == shrunk
    assert half.pixels[: 3 * half.width : 3] == bytes(range(0, width, 2))


def test_a_picture_that_is_too_large_has_fewer_pixels_or_is_none() -> None:
    noise = random.Random(1).randbytes(3 * 64 * 64)
    picture = Picture(width=64, height=64, pixels=noise)
    width, height, _ = decoded(picture.png_of_at_most(4000))

    assert len(picture.png()) > 4000
    assert (width, height) == (32, 32)
    assert picture.png_of_at_most(100) == b""
