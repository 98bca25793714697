"""Differences between two JSON values, told by option path."""

from __future__ import annotations

from typing import Any

from pytest_nixos.nix.command.refs import nix_quote

__all__ = ["differences", "sub_path"]

Json = Any


def differences(path: str, ours: Json, theirs: Json) -> dict[str, tuple[Json, Json]]:
    """Return what differs below an option path: path to (ours, theirs).

    Sets are compared name by name; a name that one of them lacks counts as ``None`` there.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        changed: dict[str, tuple[Json, Json]] = {}
        for key in sorted(ours.keys() | theirs.keys()):
            changed |= differences(sub_path(path, key), ours.get(key), theirs.get(key))
        return changed
    return {path: (ours, theirs)} if ours != theirs else {}


def sub_path(path: str, name: str) -> str:
    """Return the path of an attribute below an option path, quoted where a module would have to."""
    plain = name.replace("_", "a").replace("-", "a").isalnum() and not name[0].isdigit()
    return f"{path}.{name if plain else nix_quote(name)}"
