"""The files that ship with this package, read from their compiled form where there is one: a wheel
brings it, and beside a checkout the user's cache keeps it.

Only speed depends on it. It counts where it was made of exactly the texts that are there, so it is
never stale; where it cannot be read or written, the texts are parsed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, TypeVar

from pytest_nixos.local.dirs import cache_directory
from pytest_nixos.nix.command.cache import EvaluationCache
from pytest_nixos.standards.compile_toml import compiled_name, key_of, texts_of
from pytest_nixos.standards.documents import as_model, read_toml

__all__ = ["compiled_cache", "read_bundled", "read_folder"]

Json = Any
T = TypeVar("T")


def compiled_cache() -> EvaluationCache:
    """Return where compiled documents of checkouts are kept: by key, removed when unused."""
    return EvaluationCache(directory=cache_directory("compiled"))


def read_bundled(folder: str, kind: type[T]) -> list[tuple[Path, T]]:
    """Read the bundled files of one of :data:`~pytest_nixos.standards.compile_toml.FOLDERS`, by name.

    They are not held against the schema: this package's tests do that, and it takes half a second.

    :raises CatalogueError: if one is malformed.
    """
    with as_file(files("pytest_nixos.standards")) as standards:
        return read_folder(standards, folder, kind, compiled_cache())


def read_folder(
    standards: Path, folder: str, kind: type[T], cache: EvaluationCache
) -> list[tuple[Path, T]]:
    """Read the files of a folder below `standards`; see :func:`read_bundled`."""
    texts = texts_of(standards / folder)
    paths = {name: standards / folder / name for name in texts}
    key = key_of(texts)
    documents = _of_wheel(standards / compiled_name(folder), key) or cache.get(key)
    if documents is None or documents.keys() != texts.keys():
        documents = {name: read_toml(path, kind) for name, path in paths.items()}
        cache.put(key, documents)
    return [(path, as_model(documents[name], kind, path)) for name, path in paths.items()]


def _of_wheel(path: Path, key: str) -> Mapping[str, Json] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(document, dict) and document.get("key") == key
    content: Mapping[str, Json] | None = document.get("content") if whole else None
    return content
