"""Disks of clones: empty overlays by qemu-img once, then by copying."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import Completed, LineSink
from pytest_nixos.machine.snapshot.clone import Disk, DiskKind
from pytest_nixos.machine.snapshot.clone_disks import make_disks
from tests.support.runner import FakeRunner

ROOT = Disk(name="disk.qcow2", kind=DiskKind.OVERLAY)


def over(argv: Sequence[str], _on_stderr_line: LineSink | None) -> Completed:
    """Make an image that names what it lies over, as qemu-img does."""
    Path(argv[-1]).write_text(f"over {argv[-2]}")
    return Completed(argv=tuple(argv), exit_status=0, stdout=b"", stderr=b"")


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    directory = tmp_path / "snapshot"
    directory.mkdir()
    (directory / ROOT.name).touch()
    return directory


def cloned(qemu_img: FakeRunner, snapshot: Path, run_dir: Path) -> str:
    make_disks(qemu_img, [ROOT], qemu_img="qemu-img", snapshot=snapshot, run_dir=run_dir)
    image = run_dir / ROOT.name
    made = image.read_text()
    image.write_text("what its guest wrote")
    return made


def test_qemu_img_runs_for_the_first_clone(snapshot: Path, tmp_path: Path) -> None:
    qemu_img = FakeRunner(over)
    for name in "abc":
        assert cloned(qemu_img, snapshot, tmp_path / name) == f"over {snapshot / ROOT.name}"
    assert len(qemu_img.calls) == 1
    assert (tmp_path / "c" / ROOT.name).stat().st_mode & 0o777 == 0o600


def test_a_snapshot_in_another_place_has_other_overlays(snapshot: Path, tmp_path: Path) -> None:
    qemu_img = FakeRunner(over)
    cloned(qemu_img, snapshot, tmp_path / "a")
    moved = snapshot.rename(tmp_path / "moved")
    assert cloned(qemu_img, moved, tmp_path / "b") == f"over {moved / ROOT.name}"
    assert len(qemu_img.calls) == 2


def test_one_that_fails_is_not_kept(snapshot: Path, tmp_path: Path) -> None:
    qemu_img = FakeRunner(Completed(argv=(), exit_status=1, stdout=b"", stderr=b"no room"))
    with pytest.raises(MachineError, match="no room"):
        cloned(qemu_img, snapshot, tmp_path / "a")
    assert [path.name for path in snapshot.iterdir()] == [ROOT.name]
