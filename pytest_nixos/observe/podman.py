"""OCI containers that run on a machine, as podman inspects them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_nixos.observe.fact import Fact
from pytest_nixos.observe.text import read_json

__all__ = ["PODMAN_FACTS"]

Json = Any

_INSPECT = r"""
command -v podman >/dev/null || exit 3
names=$(podman ps --quiet)
[ -n "$names" ] || exit 3
podman inspect $names"""


def _containers(text: str) -> dict[str, Json]:
    try:
        documents = read_json(text)
    except ValueError:
        return {}
    return {str(d.get("Name", "?")): _facts(d) for d in documents if isinstance(d, dict)}


def _facts(document: Mapping[str, Json]) -> dict[str, Json]:
    host = document.get("HostConfig") or {}
    return {
        "privileged": host.get("Privileged"),
        "namespaces": [host.get(f"{name}Mode") or "private" for name in ("Pid", "Network", "Ipc")],
        "user-namespace": host.get("UsernsMode") or "",
        "capabilities": document.get("EffectiveCaps") or [],
        "security": host.get("SecurityOpt") or [],
        "memory": host.get("Memory") or 0,
        "processes": host.get("PidsLimit") or 0,
        "read-only": host.get("ReadonlyRootfs"),
        "mounts": [m.get("Source") for m in document.get("Mounts") or () if isinstance(m, dict)],
    }


PODMAN_FACTS: Mapping[str, Fact] = {
    "containers": Fact(
        script=_INSPECT,
        parse=_containers,
        about="isolation, limits and mounts of each running container",
        lacking="the machine runs no podman container",
    ),
}
