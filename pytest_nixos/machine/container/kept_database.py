"""Nix databases of containers, kept between runs: making one starts three programs of Nix, which is
a tenth of what a container's start costs.
"""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pytest_nixos.local.dirs import cache_directory
from pytest_nixos.nix.command.cache import EvaluationCache, evaluation_key

__all__ = ["KeptDatabases"]

Json = Any

# Nix makes these itself: its lock, and room for its garbage collector.
_NOT_KEPT = frozenset({"big-lock", "reserved"})
_QUICK = 1


class KeptDatabases:
    """Databases by toplevel. One counts only while each path of its closure is the one that was
    registered: a path that was collected and built again can have other contents under the same name.

    :param cache: where they lie.
    """

    def __init__(self, cache: EvaluationCache) -> None:
        self._cache = cache

    @classmethod
    def of_user(cls) -> Self:
        """Return those of the user who runs this."""
        return cls(EvaluationCache(directory=cache_directory("nix-databases")))

    @property
    def directory(self) -> Path:
        """Where they lie."""
        return self._cache.directory

    def restore(self, database: Path, toplevel: Path, nix_store: str) -> bool:
        """Fill the directory of a database that was never opened; return whether one was kept.

        :param nix_store: the program that would make it.
        :raises OSError: if it cannot be written.
        """
        document = self._cache.get(_key(toplevel, nix_store))
        if document is None or _stamp(document["paths"]) != document["stamp"]:
            return False
        for name, packed in document["files"].items():
            (database / name).write_bytes(zlib.decompress(base64.b64decode(packed)))
        return True

    def keep(self, database: Path, toplevel: Path, nix_store: str, *, paths: Sequence[str]) -> None:
        """Keep a database that nobody has open.

        :param paths: those that are registered in it.
        """
        if (stamp := _stamp(paths)) is None:
            return
        files = {
            file.name: _packed(file)
            for file in database.iterdir()
            if file.is_file() and file.name not in _NOT_KEPT
        }
        document = {"files": files, "paths": list(paths), "stamp": stamp}
        self._cache.put(_key(toplevel, nix_store), document)


def _key(toplevel: Path, nix_store: str) -> str:
    """Return the key of a toplevel's database; another release of Nix writes another one."""
    program = Path(nix_store).stat()
    nix = [os.path.realpath(nix_store), program.st_size, program.st_mtime_ns]
    return evaluation_key({"database": str(toplevel), "nix": nix})


def _stamp(paths: Sequence[str]) -> str | None:
    """Return what tells paths from others that were built under their names; ``None`` if one is
    missing.
    """
    digest = hashlib.sha256()
    try:
        for path in paths:
            found = os.lstat(path)
            digest.update(f"{path} {found.st_ino} {found.st_ctime_ns}\n".encode())
    except OSError:
        return None
    return digest.hexdigest()


def _packed(file: Path) -> Json:
    return base64.b64encode(zlib.compress(file.read_bytes(), _QUICK)).decode()
