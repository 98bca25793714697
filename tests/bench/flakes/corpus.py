"""What the corpus names: public repositories at a commit each, and where their sources lie."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_nixos.nix.command.metadata import source_path

__all__ = [
    "CORPUS",
    "Inputs",
    "NotFetched",
    "Repository",
    "checkout",
    "find_mirror",
    "load_corpus",
    "provide_inputs",
]

Json = Any
InputPath = tuple[str, ...]
CORPUS = Path(__file__).parent / "corpus.toml"
#: The project's own repository, of which the tree that is given stands in.
_NIXPKGS = ("nixos", "nixpkgs")
_DEEPEST = 2
#: A repository of GitHub, by git or as FlakeHub pins it.
_AT_GITHUB = re.compile(
    r"(?:git\+)?https://(?:github\.com|api\.flakehub\.com/f/pinned)/([^/]+)/([^/?]+?)(?:\.git)?(?:[/?]|$)"
)


class NotFetched(Exception):
    """A repository, or its commit, is in none of the places that were looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One entry of the corpus.

    :param name: ``owner/name`` at GitHub.
    :param hosts: the hosts that are evaluated.
    """

    name: str
    commit: str
    hosts: tuple[str, ...]


def load_corpus(file: Path = CORPUS) -> tuple[Repository, ...]:
    """Read the list."""
    entries = tomllib.loads(file.read_text())["repository"]
    return tuple(
        Repository(name=entry["name"], commit=entry["commit"], hosts=tuple(entry["hosts"]))
        for entry in entries
    )


def checkout(repository: Repository, sources: Sequence[Path], work: Path) -> Path:
    """Return a working copy of the repository at its commit, below `work`.

    :raises NotFetched: if it is in none of `sources` and cannot be cloned.
    """
    mirror = find_mirror(repository.name, sources) or _cloned(repository.name, work)
    copy = work / "flakes" / repository.name.replace("/", "+")
    if not copy.is_dir():
        _git(None, "clone", "--quiet", "--shared", "--no-checkout", str(mirror), str(copy))
    _git(copy, "-c", "advice.detachedHead=false", "checkout", "--quiet", repository.commit)
    return copy


def find_mirror(name: str, sources: Sequence[Path]) -> Path | None:
    """Return the git directory of ``owner/name`` in `sources`, without regard to case.

    One that is called so of another owner serves too, since repositories move; a commit, or the
    content's hash, says whether it is the same.
    """
    owner, _, repository = name.lower().partition("/")
    shapes = {f"{owner}+{repository}/repo", f"{owner}/{repository}", f"{owner}/{repository}.git"}
    moved = None
    for source in sources:
        for found in sorted(source.glob("*/*")):
            place = str(found.relative_to(source)).lower()
            if place in shapes:
                return found
            if place.endswith((f"+{repository}/repo", f"/{repository}", f"/{repository}.git")):
                moved = found
    return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What became of a flake's locked inputs.

    :param nixpkgs: those that are a nixpkgs, which the caller overrides.
    :param replaced: those of which an earlier commit is at hand, each with a flake ref to it.
    :param emptied: the flake's own inputs that are not at hand, each with a flake ref to a flake without outputs: a host that asks
        one for anything is not evaluated, by that attribute's name, and one that does not is.
    :param missing: all that is not at hand.
    """

    nixpkgs: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    emptied: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()


def provide_inputs(flake: Path, sources: Sequence[Path], work: Path) -> Inputs:
    """Put the locked inputs of a flake into the store, as far as their sources are at hand.

    Nix does not fetch an input whose content, known by the lock's hash, is there.
    """
    try:
        lock = json.loads((flake / "flake.lock").read_text())
    except FileNotFoundError:
        return Inputs()
    nixpkgs: list[InputPath] = []
    missing: list[InputPath] = []
    replaced: dict[InputPath, Path] = {}
    for path, node in _inputs(lock):
        locked = node.get("locked") or {}
        if _is_nixpkgs(locked):
            nixpkgs.append(path)
        elif locked.get("type") == "path" or _provided(locked, sources, work):
            continue
        elif _reachable(path, missing, replaced) and (found := _earlier(locked, sources, work)):
            replaced[path] = found
        else:
            missing.append(path)
    return Inputs(
        nixpkgs=tuple("/".join(path) for path in nixpkgs if _reachable(path, missing, replaced)),
        replaced=tuple(("/".join(path), f"path:{tree}") for path, tree in replaced.items()),
        emptied=tuple(
            ("/".join(path), f"path:{_empty_flake(work)}")
            for path in missing
            if _reachable(path, missing, replaced)
        ),
        missing=tuple(map("/".join, missing)),
    )


def _reachable(
    path: InputPath, missing: Sequence[InputPath], replaced: Mapping[InputPath, Path]
) -> bool:
    """Whether an input can be overridden.

    To override an input of a missing one, Nix would have to fetch that one; and for one that lies deep it asks the network what the
    flakes on the way want by now. What an earlier commit does not have is none of its inputs.
    """
    above = [path[:length] for length in range(1, len(path))]
    return (
        len(path) <= _DEEPEST
        and not any(way in missing for way in above)
        and all(_has_input(replaced.get(way), path[len(way) :]) for way in above)
    )


def _empty_flake(work: Path) -> Path:
    flake = work / "empty" / "flake.nix"
    flake.parent.mkdir(parents=True, exist_ok=True)
    flake.write_text("{ outputs = _: { }; }\n")
    return flake.parent


def _has_input(earlier: Path | None, path: Sequence[str]) -> bool:
    """Whether the earlier commit that stands in for an input has an input of its own at `path`, as
    the locked one does.
    """
    if earlier is None or not path:
        return True
    file = earlier / "flake.lock"
    if not file.is_file():
        return False
    lock = json.loads(file.read_text())
    return path[0] in (lock["nodes"][lock["root"]].get("inputs") or {})


def _inputs(lock: Mapping[str, Json]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Json]]]:
    """Yield each locked input once, by the shortest way that leads to it."""
    nodes = lock["nodes"]
    queue: list[tuple[tuple[str, ...], str]] = [((), lock["root"])]
    seen: set[str] = set()
    while queue:
        path, key = queue.pop(0)
        if key in seen:
            continue
        seen.add(key)
        if path:
            yield path, nodes[key]
        for name, target in (nodes[key].get("inputs") or {}).items():
            if isinstance(target, str):
                queue.append(((*path, name), target))


def _is_nixpkgs(locked: Mapping[str, Json]) -> bool:
    owner, name = str(locked.get("owner")).lower(), str(locked.get("repo")).lower()
    url = str(locked.get("url")).lower()
    return (owner, name) == _NIXPKGS or "nixos/nixpkgs/" in url or "/nixos.org/" in url


def _provided(locked: Mapping[str, Json], sources: Sequence[Path], work: Path) -> bool:
    place = source_path(locked.get("narHash"))
    if place is not None and Path(place).exists():
        return True
    mirror = _mirror(locked, sources)
    tree = mirror and _tree(mirror, str(locked["rev"]), work)
    if not tree:
        return False
    subprocess.run(["nix-store", "--add", tree], check=True, capture_output=True)
    return place is not None and Path(place).exists()


def _earlier(locked: Mapping[str, Json], sources: Sequence[Path], work: Path) -> Path | None:
    """Return the tree of the last commit before a locked one that its mirror does not have yet."""
    mirror, when = _mirror(locked, sources), locked.get("lastModified")
    if mirror is None or when is None:
        return None
    found = _git(mirror, "rev-list", "-1", f"--before=@{when}", "HEAD").strip()
    return _tree(mirror, found, work) if found else None


def _mirror(locked: Mapping[str, Json], sources: Sequence[Path]) -> Path | None:
    name = _repository(locked)
    return find_mirror(name, sources) if name else None


def _tree(mirror: Path, commit: str, work: Path) -> Path | None:
    """Return the files of a commit, ``None`` if the mirror does not have it."""
    tree = work / "inputs" / commit / "source"
    if not tree.is_dir():
        archive = subprocess.run(
            ["git", "-C", mirror, "archive", commit], capture_output=True, check=False
        )
        if archive.returncode != 0:
            return None
        tree.mkdir(parents=True)
        subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    return tree


def _repository(locked: Mapping[str, Json]) -> str:
    """Return ``owner/name`` of a locked input that comes from GitHub, by whatever way."""
    if locked.get("type") == "github":
        return f"{locked['owner']}/{locked['repo']}"
    found = _AT_GITHUB.match(str(locked.get("url")))
    return f"{found[1]}/{found[2]}" if found and locked.get("rev") else ""


def _cloned(name: str, work: Path) -> Path:
    mirror = work / "clones" / name.replace("/", "+")
    if not mirror.is_dir():
        _git(None, "clone", "--quiet", "--bare", f"https://github.com/{name}", str(mirror))
    return mirror


def _git(directory: Path | None, *arguments: str) -> str:
    place = () if directory is None else ("-C", str(directory))
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", *place, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise NotFetched(said[-1] if said else f"git {arguments[0]} failed")
    return done.stdout
