"""Private directories are private under any umask."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pytest_nixos.local.private_directory import private_directory


def test_no_umask_opens_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_directory(tmp_path / "a/b/c")
        private_directory(tmp_path / "a/b/c")
    finally:
        os.umask(before)
    for path in ("a", "a/b", "a/b/c"):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o700


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    private_directory(tmp_path / "open/in")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o755
