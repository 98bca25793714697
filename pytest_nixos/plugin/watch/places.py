"""What a watched run depends on of this machine's files, and which of it has changed.

Files are looked at by name, a few times a second, and not by inotify: a library for that follows
``result`` into the store, loses a file that an editor replaces, and misses what changes between two
waits. A look at 2,000 files takes 5 ms.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_nixos.errors import NixosError
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.standards.sources.flake_files import flake_directory

__all__ = ["Places", "Seen", "changes", "local_inputs"]

#: What a file was when it was looked at; ``None`` where it is not there.
Seen = Mapping[str, tuple[int, ...] | None]

_POLL_S = 0.25
# Of the time between two looks, no look may take more than this part.
_SHARE = 10
_QUIET_S = 0.1
_GIT_LIMIT_S = 30.0
_NO_SOURCES = frozenset(
    {
        *(".git", ".hg", ".svn", ".jj", ".direnv", ".venv", "node_modules"),
        *("__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"),
    }
)
_LEFT_BY_EDITORS = ("~", ".swp", ".swx", ".pyc")


@dataclass(slots=True, kw_only=True)
class Places:
    """The files that are watched.

    :param directories: taken as a whole, as Nix takes ``path:`` flakes.
    :param repositories: roots of git repositories, of which Nix takes what git tracks.
    :param files: named one by one; a folder among them stands for the Python files in it.
    :param written: what the run itself writes.
    """

    directories: tuple[Path, ...] = ()
    repositories: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    written: frozenset[Path] = frozenset()
    _tracked: dict[Path, _Tracked] = field(default_factory=dict)

    @classmethod
    def of_flakes(
        cls, urls: Iterable[str], files: Iterable[Path], *, written: Iterable[Path]
    ) -> Places:
        """Find what of some flake refs lies on this machine.

        :param files: Nix files with hosts, tests, waivers and the like.
        """
        directories: dict[Path, None] = {}
        repositories: dict[Path, None] = {}
        for url in urls:
            directory = flake_directory(url)
            if directory is None or directory.is_relative_to("/nix/store"):
                continue
            root = None if url.startswith("path:") else _repository(directory)
            (directories if root is None else repositories)[root or directory] = None
        return cls(
            directories=tuple(directories),
            repositories=tuple(repositories),
            files=tuple(dict.fromkeys(files)),
            written=frozenset(written),
        )

    @property
    def told(self) -> str:
        """What is watched, in words."""
        places = [*self.directories, *self.repositories]
        return ", ".join(map(str, places or self.files))

    def look(self) -> Seen:
        """Look at all files once."""
        return {str(path): _state(path) for path in self._paths() if path not in self.written}

    def wait(self, before: Seen, *, until: Callable[[], bool] = lambda: False) -> tuple[Path, ...]:
        """Wait until something differs from `before`, and then until nothing changes any more:
        editors and git write several files.

        :param until: ends it, too.
        :return: what differs, sorted.
        """
        now = before
        while not until():
            started_s = time.monotonic()
            now = self.look()
            if changes(before, now):
                break
            time.sleep(max(_POLL_S, _SHARE * (time.monotonic() - started_s)))
        while not until():
            time.sleep(_QUIET_S)
            later = self.look()
            if later == now:
                break
            now = later
        return changes(before, now)

    def _paths(self) -> Iterator[Path]:
        for directory in self.directories:
            yield from _below(directory)
        for root in self.repositories:
            tracked = self._tracked.setdefault(root, _Tracked(root))
            yield from tracked.paths()
        for path in self.files:
            yield from (p for p in _below(path) if p.suffix == ".py") if path.is_dir() else (path,)


class _Tracked:
    """What git tracks below a root; git is asked again where its index or branch has changed.

    The commit counts as a file: a flake can name it (``self.rev``).
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._asked: tuple[object, ...] = ()
        self._names: tuple[Path, ...] = ()
        self._git = Path(self._say("rev-parse", "--absolute-git-dir").strip() or root / ".git")

    def paths(self) -> tuple[Path, ...]:
        head = self._git / "logs" / "HEAD"
        state = (_state(self._git / "index"), _state(head))
        if state != self._asked:
            names = self._say("ls-files", "-z").split("\0")
            self._names = tuple(self._root / name for name in names if name)
            self._asked = state
        return (*self._names, head)

    def _say(self, *words: str) -> str:
        try:
            said = SubprocessRunner().run(
                ("git", "-C", str(self._root), *words), deadline=Deadline.after(_GIT_LIMIT_S)
            )
        except NixosError:
            return ""
        return said.stdout_text if said.exit_status == 0 else ""


def changes(before: Seen, now: Seen) -> tuple[Path, ...]:
    """List the files that differ, sorted."""
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return tuple(map(Path, names))


def local_inputs(flake: Path) -> Iterator[str]:
    """Yield the inputs of a flake that its lock takes from directories of this machine."""
    try:
        nodes = json.loads((flake / "flake.lock").read_bytes())["nodes"].values()
        locked = [node.get("locked", {}) for node in nodes]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    for entry in locked:
        if entry.get("type") == "path" and str(entry.get("path", "")).startswith("/"):
            yield f"path:{entry['path']}"
        elif str(entry.get("url", "")).startswith("file:"):
            yield f"git+{entry['url']}"


def _repository(directory: Path) -> Path | None:
    places = (directory, *directory.parents)
    return next((place for place in places if (place / ".git").exists()), None)


def _below(directory: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if name not in _NO_SOURCES]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118 - thousands a look
        for name in (*names, *links):
            if not name.endswith(_LEFT_BY_EDITORS):
                yield Path(folder, name)


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
