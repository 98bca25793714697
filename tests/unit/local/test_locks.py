"""File locks that say at once whether they could be had."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from pytest_nixos.local.locks import hold_exclusive, hold_shared


def test_shared_ones_go_together_and_an_exclusive_one_alone(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        assert hold_shared(first, lock)
        assert hold_shared(second, lock)
        with contextlib.ExitStack() as third:
            assert not hold_exclusive(third, lock)
    with contextlib.ExitStack() as stack:
        assert hold_exclusive(stack, lock)
    assert lock.stat().st_mode & 0o777 == 0o600


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "lock").symlink_to(target)
    with contextlib.ExitStack() as stack, pytest.raises(OSError, match="symbolic"):
        hold_exclusive(stack, tmp_path / "lock")
    assert not os.path.lexists(target)
