"""Where snapshots are kept: ``$XDG_CACHE_HOME/pytest-nixos/snapshots/KEY``, private, written
whole or not at all.

Two locks guard a key. Who makes a snapshot holds ``KEY.lock`` alone; whoever uses one shares the
``lock`` in its directory, so that nothing that a running clone still reads is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_nixos.local.dirs import cache_directory, make_private
from pytest_nixos.local.locks import hold_exclusive, hold_shared
from pytest_nixos.machine.snapshot.limits import CacheLimits
from pytest_nixos.machine.snapshot.record import RECORD, Snapshot, SnapshotDamaged, SnapshotRecord

__all__ = ["CacheLimits", "SnapshotStore"]

_NEW = ".new-"
_LOCK = "lock"
_LOCK_SUFFIX = ".lock"
_USED = "used"
_YOUNG_S = 60.0


class SnapshotStore:
    """The snapshots of one user.

    :param directory: made on first use, readable by its owner only.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def of_user(cls) -> SnapshotStore:
        """Return those of the user who runs this."""
        return cls(cache_directory("snapshots"))

    def path(self, key: str) -> Path:
        """Return the directory of a snapshot."""
        return self.directory / key

    @contextlib.contextmanager
    def using(self, key: str) -> Iterator[Snapshot | None]:
        """Yield the snapshot of `key`, checked, ``None`` without one; it stays until the end.

        :raises SnapshotDamaged: if there is one that cannot be used.
        """
        path = self.path(key)
        # A draft of a killed session holds a guest's memory: it goes with the next use, not with
        # the next save only.
        self._sweep()
        with contextlib.ExitStack() as stack:
            snapshot = Snapshot.load(path) if os.path.lexists(path) else None
            if snapshot is not None and not hold_shared(stack, path / _LOCK):
                snapshot = None  # it is being removed
            if snapshot is not None:
                snapshot.check()
                (path / _USED).touch(mode=0o600)
            yield snapshot

    @contextlib.contextmanager
    def writing(self, key: str) -> Iterator[bool]:
        """Yield whether this process may make the snapshot of `key`; another one makes it
        otherwise.
        """
        make_private(self.directory)
        with contextlib.ExitStack() as stack:
            yield hold_exclusive(stack, self.directory / f"{key}{_LOCK_SUFFIX}")

    @contextlib.contextmanager
    def draft(self) -> Iterator[Path]:
        """Yield a new directory for a snapshot's files; it is removed at the end unless it was
        committed.
        """
        self._sweep()
        path = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.directory))
        try:
            # While it is locked, no other process takes it for what somebody left behind.
            with contextlib.ExitStack() as stack:
                hold_shared(stack, path / _LOCK)
                yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def commit(self, draft: Path, record: SnapshotRecord) -> bool:
        """Make a draft the snapshot of its key; return whether it did: an older one may be in use.

        :raises OSError: if the disk is full.
        """
        if not self.discard(record.key):
            return False
        with (draft / RECORD).open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(record.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        (draft / _USED).touch(mode=0o600)
        draft.rename(self.path(record.key))
        return True

    def discard(self, key: str) -> bool:
        """Remove a snapshot unless somebody uses it; return whether it is gone."""
        path = self.path(key)
        if path.is_symlink():
            path.unlink()
        if not path.exists():
            return True
        with contextlib.ExitStack() as stack:
            try:
                if not hold_exclusive(stack, path / _LOCK):
                    return False
                # First the name: whoever is interrupted now leaves nothing that looks whole.
                doomed = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.directory))
                path.rename(doomed / "old")
            except OSError:
                return False
            shutil.rmtree(doomed, ignore_errors=True)
        return not path.exists()

    def entries(self) -> Mapping[str, Snapshot | None]:
        """List snapshots by key, used least recently first; ``None`` for one that is not whole."""
        found = sorted(self._paths(), key=_used_at_s)
        return {path.name: _loaded(path) for path in found}

    def used_at_s(self, key: str) -> float:
        """Return when a snapshot was used last, in seconds since 1970."""
        return _used_at_s(self.path(key))

    def prune(self, limits: CacheLimits) -> tuple[str, ...]:
        """Remove what is not whole, too old, or too much; return the keys.

        What is in use stays, and counts.
        """
        self._sweep()
        entries = self.entries()
        room = {key: 0 if entry is None else entry.disk_bytes for key, entry in entries.items()}
        now_s = time.time()
        removed = []
        for key, entry in entries.items():
            too_old = now_s - self.used_at_s(key) > limits.most_age_s
            too_much = sum(room.values()) > limits.most_bytes
            if (entry is None or too_old or too_much) and self.discard(key):
                removed.append(key)
                del room[key]
        return tuple(removed)

    def _paths(self) -> list[Path]:
        try:
            names = list(self.directory.iterdir())
        except OSError:
            return []
        return [path for path in names if not path.name.startswith(".") and path.is_dir()]

    def _sweep(self) -> None:
        """Remove drafts whose maker is gone."""
        make_private(self.directory)
        for path in self.directory.glob(f"{_NEW}*"):
            with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
                young = time.time() - path.stat().st_mtime < _YOUNG_S  # perhaps not locked yet
                if not young and hold_exclusive(stack, path / _LOCK):
                    shutil.rmtree(path, ignore_errors=True)


def _loaded(path: Path) -> Snapshot | None:
    try:
        return Snapshot.load(path)
    except (SnapshotDamaged, ValueError, KeyError, TypeError):
        return None


def _used_at_s(path: Path) -> float:
    try:
        return (path / _USED).stat().st_mtime
    except OSError:
        return 0.0
