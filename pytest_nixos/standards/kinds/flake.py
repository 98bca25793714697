"""Kinds about the flake's lock file, its source and the system's closure, read as text and never
run.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.standards.control.nixos_releases import load_releases
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters
from pytest_nixos.standards.sources.flake_files import FlakeFiles, SourceHits, StoreScan
from pytest_nixos.standards.sources.nix_source import Place, impure_references, unhashed_fetches
from pytest_nixos.standards.sources.told_secrets import secrets_of

__all__ = ["KINDS"]

Json = Any


class LockFact(msgspec.Struct, frozen=True):
    """One fact of ``flake.lock``; `read` gets its ``nodes``, the name of the root node, and the
    date.
    """

    about: str
    read: Callable[[FlakeFiles, dt.date], Sight]


class SourceFact(msgspec.Struct, frozen=True):
    """One fact of the source: what `find` yields for a file's name and text.

    :param of_flakes: only a flake promises it.
    """

    about: str
    find: Callable[[str, str], list[str]]
    of_flakes: bool = False


class StoreFact(msgspec.Struct, frozen=True):
    """One fact of the closure: the hits of one class."""

    about: str
    read: Callable[[StoreScan], list[str]]


_FOLLOWS_MAX = 20
_HOSTED = re.compile(
    r"(?:git\+)?(?:https://|ssh://(?:git@)?|git@)(?:github\.com[/:]|(?:api\.)?flakehub\.com/f/)([^/]+)/"
)
#: The project's own channels and releases.
_CHANNEL_OF = re.compile(r"https://(?:channels|releases)\.nixos\.org/(?:nixos/|nixpkgs/)?([\w.-]+)")


def _nodes(flake: FlakeFiles) -> Mapping[str, Mapping[str, Json]] | None:
    nodes = flake.lock.get("nodes") if isinstance(flake.lock, Mapping) else None
    return nodes if isinstance(nodes, Mapping) else None


def _with_nodes(
    read: Callable[[Mapping[str, Mapping[str, Json]], str, dt.date], Sight],
) -> Callable[[FlakeFiles, dt.date], Sight]:
    def of(flake: FlakeFiles, today: dt.date) -> Sight:
        nodes = _nodes(flake)
        if nodes is None:
            return Unseen("the flake has no readable flake.lock")
        return read(nodes, str((flake.lock or {}).get("root", "root")), today)

    return of


def _unlocked(nodes: Mapping[str, Mapping[str, Json]], root: str, _: dt.date) -> Sight:
    return Seen(
        sorted(
            name
            for name, node in nodes.items()
            if name != root and not {"rev", "narHash"} & set(node.get("locked") or ())
        )
    )


def _nixpkgs(nodes: Mapping[str, Mapping[str, Json]], root: str) -> Mapping[str, Json] | None:
    name = _followed(nodes, root, ["nixpkgs"])
    return None if name is None else nodes.get(name)


def _followed(
    nodes: Mapping[str, Mapping[str, Json]], root: str, path: list[str], depth: int = 0
) -> str | None:
    """Return the node that an input's path leads to; an input that follows another one is a path
    itself.
    """
    here = root
    for step in path:
        entry = (nodes.get(here, {}).get("inputs") or {}).get(step)
        if isinstance(entry, list) and depth < _FOLLOWS_MAX:
            entry = _followed(nodes, root, [str(part) for part in entry], depth + 1)
        if not isinstance(entry, str):
            return None
        here = entry
    return here


def _of_nixpkgs(
    read: Callable[[Mapping[str, Json], dt.date], Sight],
) -> Callable[[Mapping[str, Mapping[str, Json]], str, dt.date], Sight]:
    def of(nodes: Mapping[str, Mapping[str, Json]], root: str, today: dt.date) -> Sight:
        node = _nixpkgs(nodes, root)
        if node is None:
            return Unseen("the flake has no input called nixpkgs", applicable=False)
        if (node.get("locked") or {}).get("type") == "path":
            return Unseen(
                "nixpkgs is a local path, which has no branch and no date", applicable=False
            )
        return read(node, today)

    return of


def _branch(node: Mapping[str, Json], today: dt.date) -> Sight:
    original = node.get("original") or {}
    named = _CHANNEL_OF.match(str(original.get("url") or ""))
    branch = original.get("ref") or (named[1] if named else None)
    if branch is None:
        return Seen(["the nixpkgs input names no branch"])
    problem = load_releases().branch_problem(str(branch), today)
    return Seen([] if problem is None else [problem])


def _age(node: Mapping[str, Json], today: dt.date) -> Sight:
    modified = (node.get("locked") or {}).get("lastModified")
    if not isinstance(modified, int):
        return Unseen("flake.lock does not say when nixpkgs was last modified")
    day = dt.datetime.fromtimestamp(modified, dt.UTC).date()
    return Seen((today - day).days)


def _owner(node: Mapping[str, Json], _: dt.date) -> Sight:
    locked = node.get("locked") or {}
    owner = locked.get("owner")
    if owner is None:
        url = str(locked.get("url") or "")
        match = _HOSTED.match(url)
        owner = match[1] if match else "NixOS" if _CHANNEL_OF.match(url) else url or None
    # GitHub reads names without regard to case.
    return Seen("NixOS" if str(owner).lower() == "nixos" else owner)


def _copies(nodes: Mapping[str, Mapping[str, Json]], root: str, _: dt.date) -> Sight:
    """Return one line for each distinct nixpkgs, with the inputs that bring it; its library
    alone is none.
    """
    copies: dict[str, set[str]] = {}
    for name, node in nodes.items():
        locked = node.get("locked") or {}
        if not locked or not re.fullmatch(r"nixpkgs(_\d+|-.*)?", name) or _is_library(name, locked):
            continue
        key = str(locked.get("narHash") or locked.get("rev"))
        users = copies.setdefault(key, set())
        users |= {
            "this flake" if user == root else user
            for user, other in nodes.items()
            if name in list((other.get("inputs") or {}).values())
        }
    return Seen(sorted(f"{', '.join(sorted(users))}: {key}" for key, users in copies.items()))


def _is_library(name: str, locked: Mapping[str, Json]) -> bool:
    return (
        name.startswith("nixpkgs-lib")
        or locked.get("dir") == "lib"
        or locked.get("repo") in ("nixpkgs.lib", "nixpkgs-lib")
    )


def _tracked(flake: FlakeFiles, _: dt.date) -> Sight:
    if flake.lock_tracked is None:
        return Unseen("the flake does not lie in a git repository", applicable=False)
    return Seen(flake.lock_tracked)


LOCK_FACTS: Mapping[str, LockFact] = {
    "tracked": LockFact("whether git tracks `flake.lock`", _tracked),
    "unlocked": LockFact("inputs without revision and hash", _with_nodes(_unlocked)),
    "branch": LockFact(
        "why the branch of nixpkgs is not supported, if so", _with_nodes(_of_nixpkgs(_branch))
    ),
    "age-days": LockFact("days since the locked nixpkgs was made", _with_nodes(_of_nixpkgs(_age))),
    "owner": LockFact("owner of the nixpkgs repository", _with_nodes(_of_nixpkgs(_owner))),
    "copies": LockFact("distinct copies of nixpkgs", _with_nodes(_copies)),
}


def _by_line(pattern: str, *, suffix: str) -> Callable[[str, str], list[str]]:
    expression = re.compile(pattern)

    def find(path: str, text: str) -> list[str]:
        if not path.endswith(suffix):
            return []
        found = []
        for number, line in enumerate(text.splitlines(), start=1):
            match = expression.search(line.partition("#")[0])
            if match is not None:
                found.append(f"{path}:{number}: {match[0].strip()}")
        return found

    return find


def _by_syntax(find: Callable[[str], list[Place]]) -> Callable[[str, str], list[str]]:
    def of(path: str, text: str) -> list[str]:
        if not path.endswith(".nix"):
            return []
        return [f"{path}:{place.line}: {place.what}" for place in find(text)]

    return of


_SECRET_FILE = re.compile(r"\.age$|(?:^|/)secrets/.*\.(?:ya?ml|json|env|ini)$")
#: How encrypted files begin: age, as text and binary; GnuPG; Ansible; git-crypt, which leaves them
#: locked.
_ENCRYPTED = re.compile(
    r"\A(?:age-encryption\.org/|-----BEGIN (?:AGE ENCRYPTED FILE|PGP MESSAGE)-----|\$ANSIBLE_VAULT;"
    r"|\x00GITCRYPT\x00)"
)
#: sops encrypts values and leaves names; its own part stands at the end, which a long file may be
#: cut before.
_SOPS = re.compile(r"ENC\[AES256_GCM,|\bsops\b.*\bmac\b|\"?mac\"?\s*[:=]\s*\"?ENC\[", re.DOTALL)


def _unencrypted(path: str, text: str) -> list[str]:
    if not _SECRET_FILE.search(path) or not text.strip():
        return []
    return [] if _ENCRYPTED.match(text) or _SOPS.search(text) else [path]


def _plain_secrets(path: str, text: str) -> list[str]:
    """List secrets in plain text; a file of secrets that is not encrypted at all is told as such."""
    return [] if _unencrypted(path, text) else list(_told_secrets(path, text))


# Hosts of one flake share its source, and each asks anew.
@lru_cache(maxsize=8192)
def _told_secrets(path: str, text: str) -> tuple[str, ...]:
    from pytest_nixos.secrets.scan import find_secrets

    hits = find_secrets(text, name=path)
    return tuple(f"{path}:{hit.line}: {hit}" for hit in hits if not hit.placeholder)


def _tool_versions(path: str, _: str) -> list[str]:
    return [path] if path.rpartition("/")[2] in (".tool-versions", ".asdfrc") else []


SOURCE_FACTS: Mapping[str, SourceFact] = {
    "impure": SourceFact(
        "references to time, environment, channels or the current system",
        _by_syntax(impure_references),
        of_flakes=True,
    ),
    "unhashed-fetchers": SourceFact(
        "fetchers without hash or revision", _by_syntax(unhashed_fetches)
    ),
    "loose-scripts": SourceFact(
        "units that start a script of the repository that no derivation checks",
        _by_line(r"(ExecStart\w*|script)\s*=.*\$\{\./[^}]*\.(sh|py|bash)\}", suffix=".nix"),
    ),
    "unencrypted-secrets": SourceFact("secret files that are not encrypted", _unencrypted),
    "plain-secrets": SourceFact(
        "secrets of every common kind in plain text: file, line and kind", _plain_secrets
    ),
    "tool-versions": SourceFact("version files of other tool managers", _tool_versions),
}

STORE_FACTS: Mapping[str, StoreFact] = {
    "secrets": StoreFact(
        "secrets of every common kind in the closure: file, line and kind",
        lambda scan: list(scan.secrets),
    ),
    "private-keys": StoreFact(
        "private keys of certificates and hosts in the closure",
        lambda scan: list(scan.private_keys),
    ),
}


def _flake_lock(found: tuple[FlakeFiles, dt.date], parameters: Parameters, _: HostConfig) -> Sight:
    if found[0].no_flake:
        return Unseen(found[0].no_flake, applicable=False)
    return LOCK_FACTS[str(parameters["fact"])].read(*found)


def _source_scan(flake: FlakeFiles | SourceHits, parameters: Parameters, _: HostConfig) -> Sight:
    if not (flake.hits if isinstance(flake, SourceHits) else flake.sources):
        return Unseen("the flake's source holds no text file that could be read")
    fact = SOURCE_FACTS[str(parameters["fact"])]
    if fact.of_flakes and flake.no_flake:
        return Unseen(flake.no_flake, applicable=False)
    if isinstance(flake, SourceHits):
        return Seen(list(flake.hits[str(parameters["fact"])]))
    return Seen([hit for path, text in flake.sources.items() for hit in fact.find(path, text)])


def _store_scan(scan: StoreScan, parameters: Parameters, _: HostConfig) -> Sight:
    if scan.paths == 0:
        return Unseen("the closure holds no store path that could be read")
    return Seen(STORE_FACTS[str(parameters["fact"])].read(scan))


def _named(name: str, reads: str, facts: Mapping[str, Any], find: Any) -> Kind:
    names = Parameter(required=True, choices=tuple(facts))
    return Kind(
        name=name,
        reads=reads,
        probe=None,
        find=find,
        parameters={"fact": names},
        blames=lambda p, told: secrets_of(told) if p["fact"] in _OF_SECRETS else (),
    )


_OF_SECRETS = frozenset({"plain-secrets", "secrets"})


KINDS = (
    _named("flake-lock", "the flake's lock file", LOCK_FACTS, _flake_lock),
    _named("source-scan", "the flake's source, as text", SOURCE_FACTS, _source_scan),
    _named("store-scan", "the files of the system's closure, as text", STORE_FACTS, _store_scan),
)
