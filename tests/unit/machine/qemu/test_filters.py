"""Filters between a real QEMU and its disks: errors, and a log of what was written and flushed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu.filters import (
    failing,
    logging_to,
    put_filter,
    take_filter,
)
from pytest_nixos.machine.qemu.write_log import replay
from tests.support.qemu import qemu_program
from tests.support.still_guest import BLOCK, SIZE, StillGuest

QEMU = qemu_program()
pytestmark = pytest.mark.skipif(
    not QEMU, reason="no QEMU: neither on PATH nor of a VM (./dev test)"
)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[StillGuest]:
    made = StillGuest(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def block(folder: Path, number: int, disk: str = "disk") -> int:
    """The byte that fills a block of a disk."""
    with (folder / disk).open("rb") as file:
        file.seek(number * BLOCK)
        [byte] = set(file.read(BLOCK))
    return byte


def test_writes_to_a_failing_disk_do_not_reach_it_until_it_is_whole_again(
    guest: StillGuest,
) -> None:
    disk = guest.disks["vda"]
    put_filter(guest.monitor, disk, failing(("write",)), deadline=Deadline.after(60))
    guest.order(f"write -P 1 0 {BLOCK}")
    guest.order(f"write -P 1 0 {BLOCK}", "pytest-nixos-sda")
    assert (block(guest.folder, 0), block(guest.folder, 0, "sda")) == (0, 1)
    take_filter(guest.monitor, disk, deadline=Deadline.after(60))
    guest.order(f"write -P 1 0 {BLOCK}")
    assert block(guest.folder, 0) == 1
    assert guest.disks["vda"] == disk
    assert not disk.is_temporary


def test_what_was_not_flushed_is_lost(guest: StillGuest) -> None:
    log, before = guest.folder / "log", guest.folder / "before"
    log.touch()
    before.write_bytes(bytes(SIZE))
    put_filter(guest.monitor, guest.disks["vda"], logging_to(log), deadline=Deadline.after(60))
    guest.order(f"write -P 1 0 {BLOCK}")
    guest.order("flush")
    guest.order(f"write -P 2 0 {BLOCK}")
    guest.order(f"write -P 3 {BLOCK} {BLOCK}")
    guest.stop()

    lost = replay(log, before, disk="vda", survive=0.0, seed=0)

    assert (lost.lost, lost.lost_bytes, lost.kept, lost.flushes) == (2, 2 * BLOCK, 1, 1)
    assert (block(guest.folder, 0), block(guest.folder, 1)) == (2, 3)
    assert (block(guest.folder, 0, "before"), block(guest.folder, 1, "before")) == (1, 0)


def test_a_cache_that_is_written_in_any_order_keeps_some_and_the_same_each_time(
    guest: StillGuest,
) -> None:
    log, images = guest.folder / "log", [guest.folder / name for name in ("one", "two")]
    log.touch()
    put_filter(guest.monitor, guest.disks["vda"], logging_to(log), deadline=Deadline.after(60))
    for number in range(16):
        guest.order(f"write -P {number + 1} {number * BLOCK} {BLOCK}")
    guest.stop()

    for image in images:
        image.write_bytes(bytes(SIZE))
        lost = replay(log, image, disk="vda", survive=0.5, seed=7)
        assert 0 < lost.lost < 16
        assert lost.lost + lost.kept == 16
    kept = [number for number in range(16) if block(guest.folder, number, "one")]

    assert images[0].read_bytes() == images[1].read_bytes()
    assert kept != list(range(len(kept))), "what is kept is no more than a beginning"


def test_a_disk_that_takes_no_writes_is_none_that_could_lose_them(tmp_path: Path) -> None:
    guest = StillGuest(tmp_path, read_only=True)
    try:
        assert set(guest.disks) == {"nix-store"}
    finally:
        guest.stop()


def test_a_file_that_is_no_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 2048)
    (tmp_path / "image").write_bytes(bytes(SIZE))
    with pytest.raises(MachineError, match="no log of QEMU's blklogwrites: it begins with 78"):
        replay(tmp_path / "log", tmp_path / "image", disk="vda", survive=0.0, seed=0)


def test_a_log_whose_entries_are_mixed_up_is_told(guest: StillGuest) -> None:
    log, before = guest.folder / "log", guest.folder / "before"
    log.touch()
    before.write_bytes(bytes(SIZE))
    put_filter(guest.monitor, guest.disks["vda"], logging_to(log), deadline=Deadline.after(60))
    guest.order(f"write -P 1 0 {BLOCK}")
    guest.order("flush")
    guest.stop()
    with log.open("r+b") as file:
        file.seek(512 + 100)
        file.write(b"data where the entry has none")
    with pytest.raises(MachineError, match="entry 0 is none"):
        replay(log, before, disk="vda", survive=0.0, seed=0)


def test_a_link_in_the_place_of_an_image_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (tmp_path / "image").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "log").touch()
    with pytest.raises(MachineError, match="image: "):
        replay(tmp_path / "log", tmp_path / "image", disk="vda", survive=0.0, seed=0)
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
