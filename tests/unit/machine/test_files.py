"""Files in and out, with a transport that runs commands on this machine."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.machine import files
from pytest_nixos.machine.files import GuestFiles
from tests.support.local_transport import LocalTransport

HERE = GuestFiles(LocalTransport())


def test_write_then_read_any_bytes_any_name(tmp_path: Path) -> None:
    path, content = f"{tmp_path}/it's -- a $name", bytes(range(256))
    HERE.write(path, content, mode=0o640)
    assert HERE.read(path, max_bytes=256) == content
    assert Path(path).stat().st_mode & 0o7777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["it's -- a $name"]


def test_empty_file(tmp_path: Path) -> None:
    HERE.write(f"{tmp_path}/empty", b"")
    HERE.copy_out(f"{tmp_path}/empty", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b""


def test_a_larger_file_is_an_error_not_a_part(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"four")
    with pytest.raises(MachineError, match="longer than 3 bytes"):
        HERE.read(f"{tmp_path}/f", max_bytes=3)


def test_a_guest_cannot_fill_this_machines_disk(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="/dev/zero: longer than 100000 bytes"):
        HERE.copy_out("/dev/zero", tmp_path / "out", max_bytes=100_000)
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_told_with_the_guests_words(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"no-such: cannot be read in the guest: .*No such file"):
        HERE.read(f"{tmp_path}/no-such", max_bytes=3)
    with pytest.raises(MachineError, match="No such file"):
        HERE.copy_out(f"{tmp_path}/no-such", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 99, 100, 101, 250])
def test_copies_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(files, "_PIECE", 100)
    content = random.Random(size).randbytes(size)
    source, guest, back = tmp_path / "source", tmp_path / "guest", tmp_path / "back"
    source.write_bytes(content)
    source.chmod(0o750)
    HERE.copy_in(source, str(guest))
    HERE.copy_out(str(guest), back)
    assert guest.read_bytes() == back.read_bytes() == content
    assert guest.stat().st_mode & 0o7777 == 0o750
    assert len(list(tmp_path.iterdir())) == 3


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "directory"
    target.mkdir()
    (target / "kept").touch()
    with pytest.raises(MachineError, match="directory: cannot be written"):
        HERE.write(str(target), b"x")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["directory", "kept"]
