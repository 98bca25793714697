"""Run directories: private, gone with their owner, and nobody else's business."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local import run_directory as module
from pytest_nixos.local.remove_tree import remove_tree
from pytest_nixos.local.run_directory import run_directory, sweep

OWNER = """
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
from pytest_nixos.local.run_directory import run_directory
with run_directory() as directory:
    (directory.path / "disk").mkdir()
    (directory.path / "disk/file").write_text("left")
    print(directory.path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # Short, as run directories have to be.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rd") as path:
        monkeypatch.setattr(tempfile, "tempdir", path)
        yield Path(path)


def killed_owner(base: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", OWNER, str(base)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    path = Path(done.stdout.strip())
    assert path.parent == base
    return path


def test_what_a_killed_owner_left_goes_with_the_next_one(base: Path) -> None:
    left = killed_owner(base)
    assert (left / "disk/file").exists()
    with run_directory():
        assert not left.exists()


def test_one_that_is_in_use_stays(base: Path) -> None:
    with run_directory() as mine:
        (mine.path / "disk.img").touch()
        with run_directory():
            sweep(base)
        assert (mine.path / "disk.img").exists()
    assert list(base.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's directory")
def test_another_users_directory_stays(base: Path) -> None:
    left = killed_owner(base)
    os.chown(left, 65534, 65534)
    sweep(base)
    assert (left / "disk/file").exists()


def test_a_link_by_that_name_leads_nowhere(base: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "inner").mkdir(parents=True)
    (victim / "owner.lock").touch()
    (base / "pytest-nixos-link").symlink_to(victim)
    sweep(base)
    assert (victim / "inner").exists()
    assert (victim / "owner.lock").exists()


def test_a_lock_that_is_a_pipe_or_a_directory_holds_nobody_up(base: Path) -> None:
    for name, make in (("pipe", os.mkfifo), ("directory", os.mkdir)):
        (base / f"pytest-nixos-{name}").mkdir()
        make(base / f"pytest-nixos-{name}" / "owner.lock")
    started_s = time.monotonic()
    sweep(base)
    assert time.monotonic() - started_s < 5


def test_an_empty_one_of_a_killed_session_goes_and_a_young_one_stays(base: Path) -> None:
    old, young, kept = (base / f"pytest-nixos-{name}" for name in ("old", "young", "kept"))
    for path in (old, young, kept):
        path.mkdir()
    (kept / "console.txt").touch()
    for path in (old, kept):
        os.utime(path, (time.time() - 600,) * 2)
    sweep(base)
    assert [path.exists() for path in (old, young, kept)] == [False, True, True]


def test_one_that_something_still_works_in_is_tried_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper of a killed session may make a file while the directory is removed."""
    left = killed_owner(base)
    really = remove_tree

    def busy(path: Path) -> None:
        really(path)
        path.mkdir()
        (path / "db.sqlite").touch()

    monkeypatch.setattr(module, "remove_tree", busy)
    sweep(base)
    assert left.exists()
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    sweep(base)
    assert not left.exists()


def test_a_clock_that_was_set_back_removes_nothing_that_is_in_use(base: Path) -> None:
    with run_directory() as mine:
        for when in (0.0, time.time() + 10**9):
            os.utime(mine.path, (when, when))
            sweep(base)
            assert mine.path.exists()


def test_no_room_is_told_with_what_to_do(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(MachineError, match="No space left") as caught, run_directory():
        pass
    assert "TMPDIR" in caught.value.remedy


def test_a_tmpdir_that_is_too_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp/" + 80 * "x")
    assert module._base() == Path("/tmp")


def test_it_is_private_whatever_the_umask(base: Path) -> None:
    before = os.umask(0)
    try:
        with run_directory() as mine:
            assert mine.path.stat().st_mode & 0o777 == 0o700
            assert (mine.path / "owner.lock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
