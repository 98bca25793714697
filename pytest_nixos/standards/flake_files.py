"""Files of a flake and of a closure, read on the host machine for the controls about them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

__all__ = ["FlakeFiles", "StoreScan", "flake_directory", "read_flake", "scan_closure"]

Json = Any

_SOURCE_LIMIT = 256 * 1024
_SOURCE_FILES = 2000
_STORE_LIMIT = 512 * 1024
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
#: Below these lie what software brings along: examples, test keys and manuals, and millions of small files.
_HARMLESS = re.compile(
    rb"/(share/(doc|man|info|locale|zoneinfo|i18n|terminfo)|lib/modules|lib/firmware|tests?|testdata|test_data|"
    rb"examples?|fixtures|ovmf|site-packages|node_modules|lib/perl5|lib/python[0-9.]*)(/|$)"
)
_BINARY = (
    b".so",
    b".a",
    b".o",
    b".gz",
    b".xz",
    b".zst",
    b".ko",
    b".png",
    b".bin",
    b".pyc",
    b".mo",
    b".elc",
)

_PRIVATE_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[A-Za-z0-9+/=:, \r\n-]{64}"
)
#: What it is, words of which one has to be there (found much faster than a pattern), and the pattern.
_TOKENS: tuple[tuple[str, tuple[bytes, ...], re.Pattern[bytes]], ...] = (
    ("age secret key", (b"AGE-SECRET-KEY-1",), re.compile(rb"AGE-SECRET-KEY-1[0-9A-Z]{58}")),
    ("AWS access key", (b"AKIA", b"ASIA"), re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    (
        "GitHub token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b"),
    ),
    ("GitLab token", (b"glpat-",), re.compile(rb"\bglpat-[A-Za-z0-9_-]{20}\b")),
    ("Slack token", (b"xox",), re.compile(rb"\bxox[abprs]-[0-9A-Za-z-]{20,}")),
    ("API key", (b"sk-",), re.compile(rb"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}\b")),
    (
        "pytest-nixos canary",
        (b"pytest-nixos-canary-",),
        re.compile(rb"pytest-nixos-canary-[0-9a-f]{32}"),
    ),
)


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
    """What was found in a closure, as ``path: what``; the found text itself is not kept.

    :param paths: number of store paths looked at.
    """

    paths: int
    secrets: tuple[str, ...]
    private_keys: tuple[str, ...]


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


def scan_closure(paths: Iterable[Path]) -> StoreScan:
    """Look for key material and tokens in the text files of store paths."""
    secrets: list[str] = []
    private_keys: list[str] = []
    count = 0
    for path in paths:
        count += 1
        if _is_nixpkgs(path):
            continue
        for file in _store_files(os.fsencode(path)):
            content = _small_text(file)
            if content is None:
                continue
            name = os.fsdecode(file)
            if b"PRIVATE KEY" in content and _PRIVATE_KEY.search(content):
                private_keys.append(f"{name}: private key")
            secrets += [f"{name}: {what}" for what in _tokens(content)]
    return StoreScan(
        paths=count,
        secrets=tuple(sorted({*secrets, *private_keys})),
        private_keys=tuple(sorted(private_keys)),
    )


def _tokens(content: bytes) -> Iterator[str]:
    for what, words, pattern in _TOKENS:
        if any(word in content for word in words) and pattern.search(content):
            yield what


def _is_nixpkgs(path: Path) -> bool:
    """Whether a store path is nixpkgs itself: public, with test keys, and in the closure of every flake's host."""
    return (path / "pkgs/top-level").is_dir() and (path / "nixos/modules").is_dir()


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


def _store_files(path: bytes) -> Iterator[bytes]:
    # Bytes and os.path: a closure has hundreds of thousands of files, and their names need not be UTF-8.
    if not os.path.isdir(path):  # noqa: PTH112
        yield path
        return
    for root, names, files in os.walk(path):
        names[:] = [n for n in names if not _HARMLESS.search(b"%b/%b" % (root, n))]
        for name in files:
            yield b"%b/%b" % (root, name)


def _small_text(file: bytes) -> bytes | None:
    if file.endswith(_BINARY):
        return None
    try:
        status = os.lstat(file)
        if not 0 < status.st_size <= _STORE_LIMIT or (status.st_mode & 0o170000) != 0o100000:
            return None
        with open(file, "rb") as stream:  # noqa: PTH123 - as above
            head = stream.read(4096)
            return None if b"\0" in head else head + stream.read()
    except OSError:
        return None
