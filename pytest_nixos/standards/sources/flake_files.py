"""Files of a flake and of a closure, read on the host machine for the controls about them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import msgspec

from pytest_nixos.errors import ToolMissingError
from pytest_nixos.local.process import ProcessTimeout, Runner, SubprocessRunner
from pytest_nixos.local.timing import Deadline

__all__ = ["FlakeFiles", "SourceHits", "StoreScan", "flake_directory", "read_flake"]

Json = Any

_SOURCE_LIMIT = 256 * 1024
_SOURCE_FILES = 4000
_GIT_S = 30.0
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


class FlakeFiles(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a flake.

    :param lock: ``flake.lock`` as JSON, ``None`` if there is none that can be read.
    :param lock_tracked: whether git tracks it; ``None`` outside of a git repository.
    :param sources: text files by path below the flake.
    :param no_flake: why it is none, of the folder of a file; nobody promised that such a one is
        locked or pure.
    """

    lock: Mapping[str, Json] | None
    lock_tracked: bool | None
    sources: Mapping[str, str]
    no_flake: str = ""


class SourceHits(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in a flake's files earlier, in place of the files.

    :param hits: by name of what was looked for; empty where there was nothing to read.
    :param no_flake: as of :class:`FlakeFiles`.
    """

    hits: Mapping[str, Sequence[str]]
    no_flake: str = ""


class StoreScan(msgspec.Struct, frozen=True, kw_only=True):
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


def read_flake(
    directory: Path,
    *,
    checkout: Path | None = None,
    runner: Runner | None = None,
    no_flake: str = "",
) -> FlakeFiles:
    """Read a flake.

    :param directory: its source: a working copy, or the store path that Nix made of it.
    :param checkout: the working copy, where `directory` is a store path; it tells what git tracks.
    :param runner: runs git.
    :param no_flake: why it is none, see :class:`FlakeFiles`; nothing of a lock is read then.
    """
    if no_flake:
        return FlakeFiles(
            lock=None, lock_tracked=None, sources=dict(_sources(directory)), no_flake=no_flake
        )
    lock: Json = None
    try:
        lock = json.loads((directory / "flake.lock").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        lock = None
    return FlakeFiles(
        lock=lock if isinstance(lock, Mapping) else None,
        lock_tracked=_tracked(checkout or directory, runner or SubprocessRunner()),
        sources=dict(_sources(directory)),
    )


def _sources(directory: Path) -> Iterator[tuple[str, str]]:
    count = 0
    for root, names, files in os.walk(directory):
        names[:] = sorted(n for n in names if _is_own(Path(root) / n))
        for name in sorted(files):
            path = Path(root) / name
            if name == "flake.lock" or path.is_symlink() or not path.is_file():
                continue
            try:
                with path.open("rb") as stream:
                    data = stream.read(_SOURCE_LIMIT)
            except OSError:
                continue
            # A file of any name may be text; those that are asked for by name may be encrypted.
            if b"\0" in data and not name.endswith(_TEXT_SUFFIXES):
                continue
            count += 1
            if count > _SOURCE_FILES:
                return
            yield str(path.relative_to(directory)), data.decode(errors="replace")


def _is_own(folder: Path) -> bool:
    """Whether a folder is part of the flake; one with a ``flake.nix`` of its own is another
    flake.
    """
    return not (folder.name in _SKIPPED or folder.is_symlink() or (folder / "flake.nix").is_file())


def _tracked(directory: Path, runner: Runner) -> bool | None:
    """Ask git whether it tracks ``flake.lock``; ``None`` outside of a repository, or without git.

    The repository is a stranger's: nothing that its configuration names is run, and variables of a
    git that started this process (in a hook) do not lead elsewhere.
    """
    argv = (
        *(
            "env",
            "-u",
            "GIT_DIR",
            "-u",
            "GIT_WORK_TREE",
            "-u",
            "GIT_INDEX_FILE",
            "-u",
            "GIT_PREFIX",
        ),
        *("git", "-c", "core.fsmonitor=false", "-c", "safe.directory=*", "-C", str(directory)),
        *("ls-files", "--error-unmatch", "--", "flake.lock"),
    )
    try:
        status = runner.run(argv, deadline=Deadline.after(_GIT_S)).exit_status
    except (ToolMissingError, ProcessTimeout):
        return None
    return {0: True, 1: False}.get(status)
