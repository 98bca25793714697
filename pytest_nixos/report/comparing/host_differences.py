"""What differs between two hosts of reports beside their findings: units, ports, users, boot time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["host_differences"]

Json = Any
_SETS = {"units": "units", "ports": "open ports", "users": "users", "sysctls": "kernel parameters"}


def host_differences(
    before: Mapping[str, Json], after: Mapping[str, Json], *, host: str
) -> dict[str, list[str]]:
    """Return lines by heading; what one of the two reports does not tell is left out.

    :param before: facts of the host in the earlier report.
    :param host: its name, for the headings.
    """
    found: dict[str, list[str]] = {}
    ours, theirs = before.get("declared") or {}, after.get("declared") or {}
    for key, heading in _SETS.items():
        if key in ours and key in theirs:
            found[f"{heading} of {host}"] = _members(ours[key], theirs[key])
    values = (
        ("release", before.get("release"), after.get("release")),
        ("version", before.get("version"), after.get("version")),
        ("system", ours.get("toplevel"), theirs.get("toplevel")),
    )
    found[f"system of {host}"] = [
        f"{name}: {old} -> {new}" for name, old, new in values if old and new and old != new
    ]
    found[f"boot of {host}"] = _boot(before.get("phases_s") or {}, after.get("phases_s") or {})
    return found


def _members(before: Json, after: Json) -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        changed = [
            f"{key}: {before[key]} -> {after[key]}"
            for key in sorted(before.keys() & after.keys())
            if before[key] != after[key]
        ]
        return [*_members(sorted(before), sorted(after)), *changed]
    if not isinstance(before, Sequence) or not isinstance(after, Sequence):
        return []
    return [
        *(f"- {name}" for name in before if name not in set(after)),
        *(f"+ {name}" for name in after if name not in set(before)),
    ]


def _boot(before: Mapping[str, Json], after: Mapping[str, Json]) -> list[str]:
    old, new = before.get("boot"), after.get("boot")
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return []
    return [f"{old:.1f} s -> {new:.1f} s ({new - old:+.1f} s)"]
