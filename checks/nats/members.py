"""What ``services.nats.settings`` says of a cluster: its members, its ports, and how clients log
in.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos import FlakeHost

Json = Any


def members(
    own: str, settings: Mapping[str, Json], hosts: Sequence[FlakeHost]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the hosts that the declared routes name.

    :param own: name of the host itself, a member in any case.
    :return: names of hosts in order, and routes that no host of the flake answers to.
    """
    cluster = settings.get("cluster") or {}
    routes = [str(route) for route in cluster.get("routes") or []]
    found, unknown = {own}, []
    for route in routes:
        wanted = urllib.parse.urlsplit(route if "//" in route else f"nats://{route}").hostname or ""
        # A name with a domain stands for the host of its first label.
        match = _called(hosts, wanted) or _called(hosts, wanted.partition(".")[0])
        if match is None:
            unknown.append(route)
        else:
            found.add(match.name)
    return tuple(sorted(found)), tuple(unknown)


def monitor_port(settings: Mapping[str, Json]) -> int | None:
    """Return the port of plain HTTP monitoring, ``None`` where there is none."""
    for key in ("http_port", "monitor_port", "http", "monitor"):
        text = str(settings.get(key) or "").rpartition(":")[2]
        if text.isdigit():
            return int(text)
    return None


def credentials(settings: Mapping[str, Json]) -> Mapping[str, str] | None:
    """Return what a client says in ``CONNECT``; ``None`` where it needs what the settings do not
    hold.
    """
    if (settings.get("tls") or {}).get("verify"):
        return None
    rights = settings.get("authorization")
    if not rights:
        blocked = any(settings.get(key) for key in ("operator", "resolver", "accounts"))
        return None if blocked else {}
    if rights.get("token"):
        return _plain({"auth_token": rights["token"]})
    users = [rights, *(rights.get("users") or [])]
    user = next((u for u in users if u.get("user") and u.get("password")), None)
    return None if user is None else _plain({"user": user["user"], "pass": user["password"]})


def _called(hosts: Sequence[FlakeHost], wanted: str) -> FlakeHost | None:
    return next((host for host in hosts if wanted in host.names), None)


def _plain(words: Mapping[str, Json]) -> Mapping[str, str] | None:
    """Pass passwords that are written out; a hash cannot be used to log in."""
    texts = {key: str(value) for key, value in words.items()}
    return None if any(text.startswith("$2") for text in texts.values()) else texts
