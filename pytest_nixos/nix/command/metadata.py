"""What ``nix flake metadata --json`` tells about a flake, read as pure functions."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "content_identity",
    "input_by_url",
    "input_location",
    "input_names",
    "local_sources",
    "place_of_url",
    "source_path",
    "source_paths",
    "subfolder",
    "unknown_inputs",
]

_FORGES = ("github", "gitlab", "sourcehut")
_BASE32 = "0123456789abcdfghijklmnpqrsvwxyz"
_HASH = "sha256-"
_DIGEST_BYTES = 32
_PATH_BYTES = 20

Json = Any


def content_identity(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what fixes the content of a flake and all its inputs, or ``None`` if something is
    not fixed.

    :param metadata: answer of ``nix flake metadata --json``.
    """
    locked = metadata.get("locked")
    nodes = (metadata.get("locks") or {}).get("nodes") or {}
    if not isinstance(locked, dict) or not _is_fixed(locked):
        return None
    inputs = [node for node in nodes.values() if "locked" in node]
    if not all(_is_fixed(node["locked"]) or _lies_inside_parent(node) for node in inputs):
        return None
    return {"locked": locked, "locks": metadata["locks"]}


def _is_fixed(locked: Mapping[str, Any]) -> bool:
    return bool(locked.get("narHash") or locked.get("rev"))


def _lies_inside_parent(node: Mapping[str, Any]) -> bool:
    """Tell a relative ``path:`` input: its content is part of the flake that names it (Nix 2.26
    on).
    """
    return "parent" in node and not str(node["locked"].get("path", "/")).startswith("/")


def subfolder(metadata: Mapping[str, Json]) -> str:
    """Return where below its source tree (Nix's ``path``) the flake lies, ``""`` at the top.

    A flake in a folder of a git repository is copied with the whole repository around it.
    """
    for key in ("locked", "resolved", "original"):
        if folder := (metadata.get(key) or {}).get("dir"):
            return str(folder)
    return ""


def input_names(metadata: Mapping[str, Json]) -> tuple[str, ...]:
    """List the flake's own inputs in order of name."""
    locks = metadata.get("locks") or {}
    root = (locks.get("nodes") or {}).get(locks.get("root", "root")) or {}
    return tuple(sorted(root.get("inputs") or {}))


def input_by_url(metadata: Mapping[str, Json], url: str) -> str | None:
    """Return the name of the input that is fetched from `url`, with ``/`` between names where it
    is an input's input.

    :param url: as Nix names it in its errors: scheme and place, perhaps with parameters.
    """
    wanted = place_of_url(url)
    for name, node in _inputs(metadata):
        locked = node.get("locked") or {}
        places = {str(locked.get("url", "")), str(locked.get("path", "")), _forge(locked)}
        if wanted in {place_of_url(place) for place in places - {""}}:
            return name
    return None


def place_of_url(url: str) -> str:
    """Return what of a URL or flake ref names the place, without revision and parameters."""
    place = url.partition("?")[0].removeprefix("git+").removeprefix("path:")
    kind, _, rest = place.partition(":")
    if kind in _FORGES:
        return f"{kind}:{'/'.join(rest.split('/')[:2])}"
    return place.removeprefix("file://")


def input_location(metadata: Mapping[str, Json], name: str) -> Path | None:
    """Return the directory on this machine that an input comes from, ``None`` for one of elsewhere.

    :param name: with ``/`` between names where it is an input's input.
    """
    locked = dict(_inputs(metadata)).get(name, {}).get("locked") or {}
    place = str(locked.get("url") or locked.get("path") or "").removeprefix("file://")
    return Path(place) if place.startswith("/") else None


def local_sources(metadata: Mapping[str, Json]) -> Mapping[str, str]:
    """Return the directories on this machine that the sources come from: directory to name of the
    input, ``""`` for the flake itself.
    """
    found = {
        str(directory): name
        for name, _ in _inputs(metadata)
        if (directory := input_location(metadata, name)) is not None
    }
    for key in ("original", "resolved", "locked"):
        node = metadata.get(key) or {}
        place = str(node.get("url") or node.get("path") or "").removeprefix("file://")
        if place.startswith("/"):
            found[place.rstrip("/")] = ""
    return found


def source_paths(metadata: Mapping[str, Json]) -> Mapping[str, str]:
    """Return where in the store the sources of the flake's inputs lie, or would lie: store path
    to name of the input.
    """
    return {
        path: name
        for name, node in _inputs(metadata)
        if (path := source_path((node.get("locked") or {}).get("narHash"))) is not None
    }


def source_path(nar_hash: object) -> str | None:
    """Return the store path of a source tree with this hash, ``None`` if it is no hash of that
    kind.

    A source is content-addressed under the name ``source`` (``makeFixedOutputPath`` in Nix's
    ``store-api.cc``).
    """
    if not isinstance(nar_hash, str) or not nar_hash.startswith(_HASH):
        return None
    try:
        digest = base64.b64decode(nar_hash.removeprefix(_HASH), validate=True)
    except binascii.Error:
        return None
    if len(digest) != _DIGEST_BYTES:
        return None
    whole = hashlib.sha256(f"source:sha256:{digest.hex()}:/nix/store:source".encode()).digest()
    folded = bytearray(_PATH_BYTES)
    for position, byte in enumerate(whole):
        folded[position % _PATH_BYTES] ^= byte
    number = int.from_bytes(folded, "little")
    digits = _PATH_BYTES * 8 // 5
    text = "".join(_BASE32[number >> (5 * place) & 31] for place in reversed(range(digits)))
    return f"/nix/store/{text}-source"


def _inputs(metadata: Mapping[str, Json]) -> list[tuple[str, Mapping[str, Json]]]:
    """List the flake's inputs and theirs, each node once, under the shortest name."""
    locks = metadata.get("locks") or {}
    nodes = locks.get("nodes") or {}
    root = locks.get("root", "root")
    found: dict[str, str] = {}
    level = [(root, "")]
    while level:
        following = []
        for key, name in level:
            for own, child in ((nodes.get(key) or {}).get("inputs") or {}).items():
                if isinstance(child, str) and child not in found and child != root:
                    found[child] = f"{name}/{own}" if name else own
                    following.append((child, found[child]))
        level = following
    return [(name, nodes.get(key) or {}) for key, name in found.items()]


def _forge(locked: Mapping[str, Json]) -> str:
    if "owner" not in locked:
        return ""
    return f"{locked.get('type')}:{locked['owner']}/{locked.get('repo')}"


def unknown_inputs(metadata: Mapping[str, Json], names: Iterable[str]) -> tuple[str, ...]:
    """Return those of `names` that are no inputs of the flake; Nix up to 2.8 ignores them in
    silence.

    :param names: as ``--override-input`` takes them, ``/`` between the names of nested inputs.
    """
    locks = metadata.get("locks") or {}
    nodes = locks.get("nodes") or {}
    root = locks.get("root", "root")
    return tuple(name for name in names if _node(nodes, root, name.split("/")) is None)


def _node(nodes: Mapping[str, Json], root: str, path: Iterable[str]) -> str | None:
    """Walk `path` from `root`; an input is a node's name, or a path from the root that it
    follows.
    """
    current = root
    for name in path:
        found = ((nodes.get(current) or {}).get("inputs") or {}).get(name)
        node = found if isinstance(found, str) or found is None else _node(nodes, root, found)
        if node is None:
            return None
        current = node
    return current
