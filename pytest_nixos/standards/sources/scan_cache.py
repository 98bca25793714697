"""What earlier scans found in store paths, which never change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pytest_nixos.local.dirs import cache_directory, make_private
from pytest_nixos.secrets.hit import Hit
from pytest_nixos.secrets.scan import rules_version

__all__ = ["PathScan", "ScanCache", "ScanFile"]

Json = Any

_STORE_PATH = re.compile(r"^/.*/[0-9a-df-np-sv-z]{32}-[^/]+(?:/.*)?$")
_MOST = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PathScan:
    """What one store path holds.

    :param own: whether the host's configuration made it, so that every rule was held against it.
    :param files: number of files read.
    :param unread: files that were not, each with the reason.
    :param hits: file and what was found there; never the secret.
    :param marks: digests of what a script here fills in at start, see :func:`template_marks`.
    """

    own: bool
    files: int
    unread: tuple[str, ...]
    hits: tuple[tuple[str, Hit], ...]
    marks: tuple[str, ...] = ()


class ScanCache:
    """Scans by store path, in one file of the user's own.

    A forged entry would hide a secret, so that only a file counts that nobody but its owner, who
    runs this, can
    write. What cannot be read counts as absent, what cannot be written is not kept.

    :param file: ``None`` to keep nothing.
    """

    def __init__(self, *, file: Path | None) -> None:
        self._file = file
        self._entries: dict[str, Json] | None = None
        self._new: dict[str, Json] = {}

    def get(self, path: Path, *, own: bool) -> PathScan | None:
        """Return what was found in `path`, or ``None``."""
        if self._entries is None:
            self._entries = _read(self._file) if self._file is not None else {}
        entry = self._entries.get(_key(path, own=own))
        try:
            return None if entry is None else _parsed(entry)
        except (KeyError, TypeError, ValueError):
            return None

    def put(self, path: Path, scan: PathScan, *, own: bool) -> None:
        """Keep what was found; only what lies in a store, since other files change."""
        if self._file is not None and _STORE_PATH.match(str(path)):
            self._new[_key(path, own=own)] = asdict(scan)

    def write(self) -> None:
        """Write what is new, beside what others wrote meanwhile; another process sees it whole or
        not at all.
        """
        if self._file is None or not self._new:
            return
        entries = {**_read(self._file), **self._new}
        entries = dict(list(entries.items())[-_MOST:])
        with contextlib.suppress(OSError):
            make_private(self._file.parent)
            descriptor, name = tempfile.mkstemp(dir=self._file.parent, prefix=".new-")  # mode 0600
            try:
                with os.fdopen(descriptor, "w") as stream:
                    json.dump({"rules": _version(), "scans": entries}, stream)
                Path(name).replace(self._file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        self._new = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFile:
    """The file of a :class:`ScanCache`, as ``pytest-nixos cache`` looks after it."""

    path: Path

    @classmethod
    def of_user(cls) -> Self:
        """Return the file that runs of this user share."""
        return cls(path=cache_directory("closures") / "scans.json")

    @property
    def size_bytes(self) -> int:
        """Return its size, 0 where there is none."""
        with contextlib.suppress(OSError):
            return self.path.stat().st_size
        return 0

    @property
    def count(self) -> int:
        """Return how many scans of it count: those of the same rules, that can be read."""
        return len(_read(self.path))

    def problem(self) -> str | None:
        """Say why a scan takes nothing from it, ``None`` where it is whole or not there."""
        if not self.path.exists() and not self.path.is_symlink():
            return None
        entries = _read(self.path)
        if not entries:
            return "not private, not readable, or of other rules"
        for entry in entries.values():
            try:
                _parsed(entry)
            except (KeyError, TypeError, ValueError):
                return "an entry of it cannot be read"
        return None

    def prune(self, *, most_age_s: float, now_s: float) -> bool:
        """Remove it where nothing takes anything from it, or nothing was added for too long; say
        whether it was removed.
        """
        with contextlib.suppress(OSError):
            old = now_s - self.path.lstat().st_mtime > most_age_s
            if old or self.problem() is not None:
                return self.remove()
        return False

    def remove(self) -> bool:
        """Remove it; say whether it was there."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True


def _version() -> str:
    """Return what a scan depends on beside the store path: the rules, and what is read with
    which.
    """
    readers = (Path(__file__).with_name(f"{name}.py") for name in ("closure_scan", "initrd_files"))
    digest = hashlib.sha256(rules_version().encode())
    for reader in readers:
        digest.update(reader.read_bytes())
    return digest.hexdigest()


def _key(path: Path, *, own: bool) -> str:
    return f"{'own ' if own else ''}{path}"


def _read(file: Path) -> dict[str, Json]:
    try:
        if not _private(os.lstat(file.parent), stat.S_IFDIR):
            return {}
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
            if not _private(os.fstat(stream.fileno()), stat.S_IFREG):
                return {}
            document = json.loads(stream.read())
    except (OSError, ValueError, RecursionError):
        return {}
    fits = isinstance(document, dict) and document.get("rules") == _version()
    scans = document.get("scans") if fits else None
    return scans if isinstance(scans, dict) else {}


def _private(status: os.stat_result, kind: int) -> bool:
    return (
        stat.S_IFMT(status.st_mode) == kind
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _parsed(entry: Mapping[str, Json]) -> PathScan:
    return PathScan(
        own=bool(entry["own"]),
        files=int(entry["files"]),
        unread=tuple(str(text) for text in entry["unread"]),
        hits=tuple((str(file), Hit(**hit)) for file, hit in entry["hits"]),
        marks=tuple(str(mark) for mark in entry["marks"]),
    )
