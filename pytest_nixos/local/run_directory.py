"""The directory of one machine: short, private, gone with the machine, and swept if its owner
was killed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.locks import lock_exclusive
from pytest_nixos.local.remove_tree import remove_tree

__all__ = ["RunDirectory", "living_directories", "run_directory", "sweep"]

_PREFIX = "pytest-nixos-"
_LOCK = "owner.lock"
# A directory that is being made has its lock file sooner, on a machine with sixteen neighbours too.
_YOUNG_S = 60.0
_MAX_PATH = 60  # a UNIX socket below it must fit into 108 bytes, unix(7)


class RunDirectory:
    """A machine's directory; `keep` decides whether it outlives the machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keep = False


@contextlib.contextmanager
def run_directory() -> Iterator[RunDirectory]:
    """Make a run directory and hold its lock; remove it on leaving unless ``keep`` was set.

    It lies in ``$TMPDIR`` if that is short enough, else in ``/tmp``.

    :raises MachineError: if it cannot be made (disk full, not writable).
    """
    base = _base()
    sweep(base)
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    except OSError as err:
        raise MachineError(
            f"{base}: cannot make a run directory: {err.strerror}",
            remedy="free some space there, or set TMPDIR to a directory with room for the machine's disk",
        ) from err
    directory = RunDirectory(path)
    lock = _locked(path)
    try:
        yield directory
    finally:
        if directory.keep:
            (path / _LOCK).unlink(missing_ok=True)
        else:
            remove_tree(path)
        os.close(lock)
        sweep(base)


def sweep(base: Path) -> None:
    """Remove run directories of this user whose owner is gone; a kept one has no lock file left
    to judge by.
    """
    for path in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == os.getuid() and _is_orphan(path / _LOCK):
                remove_tree(path)
                if path.exists():
                    # Something of the killed session was still at work in it: the next sweep has to
                    # know whose it was.
                    (path / _LOCK).touch(mode=0o600)
            elif time.time() - path.lstat().st_mtime > _YOUNG_S:
                path.rmdir()  # what a killed session's own helpers left empty; a kept one is not


def living_directories() -> Iterator[Path]:
    """Yield the run directories of this user whose owner lives, wherever they are made: another
    shell may have another ``$TMPDIR``.
    """
    for base in dict.fromkeys((_base(), Path("/tmp"))):  # noqa: S108 - only directories of this user count
        for path in base.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                status = path.lstat()
                own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
                if own and (path / _LOCK).is_file() and not _is_orphan(path / _LOCK):
                    yield path


def _locked(path: Path) -> int:
    # Locked before it has its name: a sweeping session must never see it unlocked.
    new = path / f"{_LOCK}.new"
    lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    lock_exclusive(lock)
    new.rename(path / _LOCK)
    return lock


def _is_orphan(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return lock_exclusive(descriptor)
    finally:
        os.close(descriptor)


def _base() -> Path:
    chosen = Path(tempfile.gettempdir())
    return chosen if len(str(chosen)) + len(_PREFIX) + 8 <= _MAX_PATH else Path("/tmp")  # noqa: S108
