"""A VM's disks that lose what was not flushed, with a real QEMU and a real qemu-img."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.vm.storage import ImageTool, VmStorage
from tests.support.qemu import qemu_program
from tests.support.still_guest import BLOCK, StillGuest

QEMU = qemu_program()
PROGRAM = Path(QEMU).parent / "qemu-img" if QEMU else None
pytestmark = pytest.mark.skipif(
    PROGRAM is None or not PROGRAM.exists(), reason="no QEMU with qemu-img: ./dev test builds one"
)
LIMIT = Deadline.after(3600)


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[StillGuest]:
    made = StillGuest(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def storage(guest: StillGuest, program: str | None = None) -> VmStorage:
    return VmStorage(
        guest.folder,
        guest.folder / "disk",
        ImageTool(program=str(PROGRAM) if program is None else program, runner=SubprocessRunner()),
        monitor=lambda: guest.monitor,
        pid=lambda: 0 if guest.process.has_ended else guest.process.pid,
        await_end=guest.process.wait_ended,
    )


def first(guest: StillGuest, number: int, disk: str = "disk") -> int:
    return (guest.folder / disk).read_bytes()[number * BLOCK]


def left(guest: StillGuest) -> list[str]:
    return sorted(path.name for path in guest.folder.iterdir() if path.name != "q")


def test_power_takes_what_was_not_flushed_from_each_disk_by_itself(guest: StillGuest) -> None:
    disks = storage(guest)
    guest.order(f"write -P 9 0 {BLOCK}")
    disks.log_writes(deadline=LIMIT)
    guest.order(f"write -P 1 0 {BLOCK}")
    guest.order("flush")
    guest.order(f"write -P 2 {BLOCK} {BLOCK}")
    guest.order(f"write -P 3 0 {BLOCK}", "pytest-nixos-sda")
    lost = {one.disk: one for one in disks.lose_writes(survive=0.0, seed=0, deadline=LIMIT)}

    assert set(lost) == {"vda", "sda"}
    assert (lost["vda"].lost, lost["vda"].flushes) == (1, 1)
    assert (lost["sda"].lost, lost["sda"].flushes) == (1, 0)
    assert [first(guest, 0), first(guest, 1), first(guest, 0, "sda")] == [1, 0, 0]
    assert left(guest) == ["disk", "sda", "store"]
    with pytest.raises(MachineError, match="not written down"):
        disks.lose_writes(survive=0.0, seed=0, deadline=LIMIT)


def test_without_a_loss_nothing_is_lost_and_nothing_is_left(guest: StillGuest) -> None:
    disks, before = storage(guest), guest.disks
    disks.log_writes(deadline=LIMIT)
    guest.order(f"write -P 1 0 {BLOCK}")
    with pytest.raises(MachineError, match="another fault stands between"):
        disks.fail("vda", kinds=("write",))
    disks.stop_logging()

    assert first(guest, 0) == 1
    assert guest.disks == before
    assert left(guest) == ["disk", "sda", "store"]


def test_a_raw_disk_that_looks_like_another_image_is_taken_as_what_it_is(guest: StillGuest) -> None:
    # What a guest writes at its beginning must not make qemu-img read another file.
    disks = storage(guest)
    (guest.folder / "disk").write_bytes(b"QFI\xfb\0\0\0\x03" + bytes((1 << 20) - 8))
    disks.log_writes(deadline=LIMIT)
    guest.order(f"write -P 1 {BLOCK} {BLOCK}")
    guest.order("flush")
    disks.lose_writes(survive=0.0, seed=0, deadline=LIMIT)

    assert (guest.folder / "disk").read_bytes()[:4] == b"QFI\xfb"
    assert first(guest, 1) == 1


def test_a_disk_elsewhere_and_a_missing_program_are_told(guest: StillGuest, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no qemu-img"):
        storage(guest, "").log_writes(deadline=LIMIT)
    elsewhere = storage(guest)
    elsewhere._run_dir = tmp_path / "other"
    with pytest.raises(MachineError, match="lies outside of its run directory"):
        elsewhere.log_writes(deadline=LIMIT)
    with pytest.raises(
        MachineError, match="no disk sdq that it writes to; there are: nix-store, sda, vda"
    ):
        storage(guest).fail("sdq", kinds=("write",))
