"""Files that are lent: made where they are not, covered where they are, and given back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.login.lend import lent_file
from tests.support.local_transport import LocalTransport

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
ROOT = "root"
LENT = "pytest-nixos-lent.*"


@pytest.fixture
def transport() -> Transport:
    return LocalTransport()


def test_a_file_that_is_there_is_covered(tmp_path: Path, transport: Transport) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"theirs")
    file.chmod(0o444)
    link.symlink_to(file)
    before = file.stat()
    with lent_file(transport, str(link), b"ours", owner=ROOT):
        assert file.read_bytes() == link.read_bytes() == b"ours"
        assert file.stat().st_mode == before.st_mode
    assert (file.read_bytes(), file.stat().st_ino) == (b"theirs", before.st_ino)


def test_one_that_is_not_is_made_with_its_directories(tmp_path: Path, transport: Transport) -> None:
    file = tmp_path / "a/b c/file"
    with lent_file(transport, str(file), b"ours", owner="nobody"):
        assert file.read_bytes() == b"ours"
        assert file.owner() == file.parent.owner() == "nobody"
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_lent_is_an_error_that_leaves_nothing(
    tmp_path: Path, transport: Transport
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(MachineError, match="cannot read otherwise"),
        lent_file(transport, str(tmp_path / "file/below"), b"ours", owner=ROOT),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_not_given_back_is_an_error(tmp_path: Path, transport: Transport) -> None:
    file, before = tmp_path / "file", set(Path("/run").glob(LENT))
    with (
        pytest.raises(MachineError, match="still there"),
        lent_file(transport, str(file), b"ours", owner=ROOT),
    ):
        file.unlink() or file.mkdir()  # type: ignore[func-returns-value]
    file.rmdir()
    for directory in set(Path("/run").glob(LENT)) - before:
        shutil.rmtree(directory)
