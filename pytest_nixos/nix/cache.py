"""Evaluations kept between runs, each under everything that can change its outcome."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_nixos.local.dirs import cache_directory

__all__ = ["EvaluationCache", "evaluation_key"]

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationCache:
    """JSON documents in a directory of the user's own.

    Only speed depends on it: what cannot be read counts as absent, what cannot be written is not kept.

    :param directory: made on first use, readable by its owner only.
    """

    directory: Path

    @classmethod
    def of_user(cls) -> EvaluationCache:
        """Return that of the user who runs this."""
        return cls(directory=cache_directory("evaluations"))

    def get(self, key: str) -> Mapping[str, Any] | None:
        """Return the document under `key`, or ``None`` if it is absent or damaged."""
        try:
            document = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        whole = isinstance(document, dict) and document.get("key") == key
        content = document.get("content") if whole else None
        return content if isinstance(content, dict) else None

    def put(self, key: str, content: Mapping[str, Any]) -> None:
        """Keep `content` under `key`; another process sees it whole or not at all."""
        with contextlib.suppress(OSError):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.directory, prefix=".new-")  # mode 0600
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump({"key": key, "content": content}, file)
                Path(name).replace(self._path(key))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.json"


def evaluation_key(parts: Mapping[str, object]) -> str:
    """Return the key of an evaluation; `parts` is JSON."""
    text = json.dumps({"format": _FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
