"""Copies of large files, by the file system and without its help."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_nixos.local.copy_file import copy_content

CONTENT = os.urandom(3 << 20) + b"end"


@pytest.mark.parametrize("most", [None, 0, 1 << 20])
def test_a_copy_is_whole_however_far_the_file_system_helps(
    most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(CONTENT)
    real, done = os.copy_file_range, 0

    def helps(from_fd: int, to_fd: int, count: int) -> int:
        nonlocal done
        if most is not None and done >= most:
            raise OSError(18, "Invalid cross-device link")
        moved = real(from_fd, to_fd, count if most is None else min(count, most - done))
        done += moved
        return moved

    monkeypatch.setattr(os, "copy_file_range", helps)
    with source.open("rb") as reading, target.open("xb") as writing:
        copy_content(reading, writing)
    assert target.read_bytes() == CONTENT


def test_a_disk_that_is_full_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(CONTENT)
    with (
        source.open("rb") as reading,
        pytest.raises(OSError, match="No space left"),
        Path("/dev/full").open("wb") as writing,
    ):
        copy_content(reading, writing)
