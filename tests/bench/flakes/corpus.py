"""What the corpus names: public repositories at a commit each, and where their sources lie."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_nixos.nix.metadata import source_path

__all__ = [
    "CORPUS",
    "NotFetched",
    "Repository",
    "checkout",
    "find_mirror",
    "load_corpus",
    "provide_inputs",
]

Json = Any
CORPUS = Path(__file__).parent / "corpus.toml"
#: The project's own repository, of which the tree that is given stands in.
_NIXPKGS = ("nixos", "nixpkgs")


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


def provide_inputs(
    flake: Path, sources: Sequence[Path], work: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Put the locked inputs of a flake into the store, as far as their sources are at hand.

    Nix does not fetch an input whose content, known by the lock's hash, is there.

    :return: inputs that are a nixpkgs, which the caller overrides; and inputs that are missing.
    """
    try:
        lock = json.loads((flake / "flake.lock").read_text())
    except FileNotFoundError:
        return (), ()
    nixpkgs, missing = [], []
    for path, node in _inputs(lock):
        locked = node.get("locked") or {}
        if _is_nixpkgs(locked):
            nixpkgs.append("/".join(path))
        elif not _provided(locked, sources, work):
            missing.append("/".join(path))
    return tuple(nixpkgs), tuple(missing)


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
    if locked.get("type") != "github":
        return False
    mirror = find_mirror(f"{locked['owner']}/{locked['repo']}", sources)
    if mirror is None:
        return False
    tree = work / "inputs" / str(locked["rev"]) / "source"
    if not tree.is_dir():
        tree.mkdir(parents=True)
        archive = subprocess.run(
            ["git", "-C", mirror, "archive", str(locked["rev"])], capture_output=True, check=False
        )
        if archive.returncode != 0:
            tree.rmdir()
            return False
        subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    subprocess.run(["nix-store", "--add", tree], check=True, capture_output=True)
    return place is not None and Path(place).exists()


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
