"""Files of a flake and of a closure, read on the host machine for the controls about them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

__all__ = ["FlakeFiles", "StoreScan", "flake_directory", "read_flake"]

Json = Any

_SOURCE_LIMIT = 256 * 1024
_SOURCE_FILES = 2000
_TEXT_SUFFIXES = (
    ".nix",
    ".age",
    ".yaml",
    ".yml",
    ".json",
    ".env",
    ".ini",
    ".sh",
    ".py",
    ".tool-versions",
    ".asdfrc",
)
_SKIPPED = frozenset({".git", ".direnv", "node_modules", ".venv", "result", "__pycache__"})
@dataclass(frozen=True, slots=True, kw_only=True)
class FlakeFiles:
    """What is read of a flake.

    :param lock: ``flake.lock`` as JSON, ``None`` if there is none that can be read.
    :param lock_tracked: whether git tracks it; ``None`` outside of a git repository.
    :param sources: text files by path below the flake.
    """

    lock: Mapping[str, Json] | None
    lock_tracked: bool | None
    sources: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreScan:
    """What was found in a closure, as ``file:line: what``; the found text itself is not kept.

    :param paths: number of store paths looked at.
    :param told: what was read and what was not, in lines.
    """

    paths: int
    secrets: tuple[str, ...]
    private_keys: tuple[str, ...]
    told: str = ""


def flake_directory(location: str) -> Path | None:
    """Return the local directory of a flake ref's text, or ``None`` for a remote one."""
    for scheme in ("path:", "git+file://", "git+file:"):
        location = location.removeprefix(scheme)
    url, _, query = location.partition("?")
    path = Path(url) / parse_qs(query).get("dir", [""])[0]
    return path if path.is_absolute() and path.is_dir() else None


def read_flake(directory: Path, *, checkout: Path | None = None) -> FlakeFiles:
    """Read a flake.

    :param directory: its source: a working copy, or the store path that Nix made of it.
    :param checkout: the working copy, where `directory` is a store path; it tells what git tracks.
    """
    lock: Json = None
    try:
        lock = json.loads((directory / "flake.lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        lock = None
    return FlakeFiles(
        lock=lock if isinstance(lock, Mapping) else None,
        lock_tracked=_tracked(checkout or directory),
        sources=dict(_sources(directory)),
    )


def _sources(directory: Path) -> Iterator[tuple[str, str]]:
    count = 0
    for root, names, files in os.walk(directory):
        names[:] = sorted(n for n in names if _is_own(Path(root) / n))
        for name in sorted(files):
            path = Path(root) / name
            if not name.endswith(_TEXT_SUFFIXES) or path.is_symlink():
                continue
            count += 1
            if count > _SOURCE_FILES:
                return
            try:
                with path.open("rb") as stream:
                    text = stream.read(_SOURCE_LIMIT).decode(errors="replace")
            except OSError:
                continue
            yield str(path.relative_to(directory)), text


def _is_own(folder: Path) -> bool:
    """Whether a folder is part of the flake; one with a ``flake.nix`` of its own is another flake."""
    return not (folder.name in _SKIPPED or folder.is_symlink() or (folder / "flake.nix").is_file())


def _tracked(directory: Path) -> bool | None:
    """Look for ``flake.lock`` in git's index, without running git."""
    for top in (directory, *directory.parents):
        git = top / ".git"
        if not git.exists():
            continue
        try:
            git = _git_directory(git)
            index = (git / "index").read_bytes()
        except OSError:
            return None
        name = (directory / "flake.lock").relative_to(top).as_posix().encode()
        return _listed(index, name)
    return None


def _listed(index: bytes, name: bytes) -> bool | None:
    """Whether git's index holds exactly `name`; ``None`` for version 4, which shortens names.

    Before each name stand 16 bits whose low 12 are its length, and after these two more bytes in extended entries
    (gitformat-index): without them the lock file of a folder below would count.
    """
    if index[4:8] == b"\0\0\0\4":
        return None
    length = min(len(name), 0xFFF)
    for found in re.finditer(re.escape(name) + b"\0", index):
        flags = [int.from_bytes(index[found.start() - n : found.start() - n + 2]) for n in (2, 4)]
        if flags[0] & 0xFFF == length or (flags[1] & 0x4FFF) == 0x4000 | length:
            return True
    return False


def _git_directory(git: Path) -> Path:
    """Follow the ``.git`` file of a worktree or submodule."""
    if git.is_dir():
        return git
    target = git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()
    return (git.parent / target).resolve()
