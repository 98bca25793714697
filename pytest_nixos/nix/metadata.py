"""What ``nix flake metadata --json`` tells about a flake, read as pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["content_identity", "input_names", "subfolder", "unknown_inputs"]

Json = Any


def content_identity(metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what fixes the content of a flake and all its inputs, or ``None`` if something is not fixed.

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
    """Tell a relative ``path:`` input: its content is part of the flake that names it (Nix 2.26 on)."""
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


def unknown_inputs(metadata: Mapping[str, Json], names: Iterable[str]) -> tuple[str, ...]:
    """Return those of `names` that are no inputs of the flake; Nix up to 2.8 ignores them in silence.

    :param names: as ``--override-input`` takes them, ``/`` between the names of nested inputs.
    """
    locks = metadata.get("locks") or {}
    nodes = locks.get("nodes") or {}
    root = locks.get("root", "root")
    return tuple(name for name in names if _node(nodes, root, name.split("/")) is None)


def _node(nodes: Mapping[str, Json], root: str, path: Iterable[str]) -> str | None:
    """Walk `path` from `root`; an input is a node's name, or a path from the root that it follows."""
    current = root
    for name in path:
        found = ((nodes.get(current) or {}).get("inputs") or {}).get(name)
        node = found if isinstance(found, str) or found is None else _node(nodes, root, found)
        if node is None:
            return None
        current = node
    return current
