"""Evaluations kept between runs, each under everything that can change its outcome."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from pytest_nixos.local.dirs import cache_directory, is_private, make_private

__all__ = ["EvaluationCache", "evaluation_key"]

_FORMAT = 2
_DAY_S = 86400.0


class EvaluationCache(msgspec.Struct, frozen=True, kw_only=True):
    """JSON documents in a directory of the user's own.

    Only speed depends on it: what cannot be read counts as absent, what cannot be written is not
    kept. What another user can have written is not believed: a planted document would decide what a
    host declares and which derivation is built.

    :param directory: made on first use, readable by its owner only: what a host declares may hold
        hashes of passwords.
    :param most_age_s: seconds since its last use after which a document is removed.
    """

    directory: Path
    most_age_s: float = 30 * _DAY_S

    @classmethod
    def of_user(cls, *, most_age_s: float = 30 * _DAY_S) -> Self:
        """Return that of the user who runs this."""
        return cls(directory=cache_directory("evaluations"), most_age_s=most_age_s)

    def get(self, key: str) -> Mapping[str, Any] | None:
        """Return the document under `key`, or ``None`` if it is absent, too old, damaged, or may
        be another user's.
        """
        path = self._path(key)
        try:
            if not (is_private(self.directory) and is_private(path)) or self._is_old(path):
                return None
            document = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        whole = isinstance(document, dict) and document.get("key") == key
        content = document.get("content") if whole else None
        if not isinstance(content, dict):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def put(self, key: str, content: Mapping[str, Any]) -> None:
        """Keep `content` under `key`; another process sees it whole or not at all. What is too
        old goes.
        """
        with contextlib.suppress(OSError):
            make_private(self.directory)
            self.prune()
            descriptor, name = tempfile.mkstemp(dir=self.directory, prefix=".new-")  # mode 0600
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump({"key": key, "content": content}, file)
                Path(name).replace(self._path(key))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def prune(self) -> int:
        """Remove what is too old, half-written files too; return how many that were."""
        removed = 0
        for path in self._files():
            with contextlib.suppress(OSError):
                if self._is_old(path):
                    path.unlink()
                    removed += 1
        return removed

    def _files(self) -> Iterator[Path]:
        yield from self.directory.glob("*.json")
        yield from self.directory.glob(".new-*")

    def _is_old(self, path: Path) -> bool:
        return time.time() - path.stat().st_mtime > self.most_age_s

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.json"


def evaluation_key(parts: Mapping[str, object]) -> str:
    """Return the key of an evaluation; `parts` is JSON."""
    text = json.dumps({"format": _FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
