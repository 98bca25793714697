"""The directories that this project keeps for its user, as the XDG base directory specification
names them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs

__all__ = ["cache_directory", "is_private", "make_private", "state_directory"]

_NAME = "pytest-nixos"


def cache_directory(kind: str) -> Path:
    """Return where what can be made again is kept: ``$XDG_CACHE_HOME/pytest-nixos/KIND``.

    :param kind: ``evaluations``, ``snapshots``, ``kvm``.
    """
    return _absolute(platformdirs.user_cache_path(_NAME), ".cache") / kind


def state_directory(kind: str) -> Path:
    """Return where what a run leaves behind is kept: ``$XDG_STATE_HOME/pytest-nixos/KIND``.

    :param kind: ``ledgers``.
    """
    return _absolute(platformdirs.user_state_path(_NAME), ".local/state") / kind


def make_private(directory: Path) -> None:
    """Make a directory and those above it that are missing, for this user alone whatever the umask.

    :raises OSError: if one cannot be made.
    """
    missing = []
    for path in (directory, *directory.parents):
        if path.is_dir():
            break
        missing.append(path)
    for path in reversed(missing):
        # Path.mkdir(parents=True) gives the mode to the last one only.
        path.mkdir(mode=stat.S_IRWXU, exist_ok=True)


def is_private(path: Path) -> bool:
    """Whether nobody but this user can have written `path`: a file or directory of their own,
    closed to others' writes.

    :raises OSError: if there is no such file.
    """
    status = path.lstat()
    return (
        not stat.S_ISLNK(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _absolute(path: Path, below_home: str) -> Path:
    # The specification says to ignore a base that is no absolute path; platformdirs takes it.
    return path if path.is_absolute() else Path.home() / below_home / _NAME
