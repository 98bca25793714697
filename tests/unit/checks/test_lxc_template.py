"""What makes a Proxmox template one."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from checks.lxc.test_lxc import _problem


def archive(directory: Path, *names: str) -> Path:
    path = directory / "template.tar.xz"
    with tarfile.open(path, "w:xz") as made:
        for name in names:
            made.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


@pytest.mark.parametrize("name", ["./sbin/init", "sbin/init", "/sbin/init"])
def test_template_with_init(name: str, tmp_path: Path) -> None:
    assert _problem(archive(tmp_path, "./etc", name)) is None


def test_template_without_init(tmp_path: Path) -> None:
    assert _problem(archive(tmp_path, "./etc")) == "has no /sbin/init"


def test_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "template.tar.xz"
    path.write_text("nothing\n")
    assert str(_problem(path)).startswith("is no archive: ")


def test_archive_that_was_cut_off(tmp_path: Path) -> None:
    path = archive(tmp_path, *(f"./etc/file-{number}" for number in range(500)))
    path.write_bytes(path.read_bytes()[:-200])
    assert str(_problem(path)).startswith("is no archive: ")
