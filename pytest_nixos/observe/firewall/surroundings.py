"""Interfaces and routes, from ``ip -json``, for the questions that a packet alone does not
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from pytest_nixos.observe.firewall.model import Interface, Route, Surroundings
from pytest_nixos.observe.firewall.spans import parse_network
from pytest_nixos.observe.text import read_json

__all__ = ["parse_surroundings"]

Json = Any

_FAMILIES = {"inet": 4, "inet6": 6}


def parse_surroundings(
    *, addresses: str, routes: Sequence[tuple[int, str]], forwarding: str
) -> Surroundings:
    """Read what the guest told; what cannot be read leaves the whole unknown.

    :param addresses: ``ip -json address``.
    :param routes: family to ``ip -json route``.
    :param forwarding: lines of family and 0 or 1.
    """
    try:
        interfaces = tuple(_interface(entry) for entry in read_json(addresses) if entry)
        found = tuple(
            route
            for family, text in routes
            for entry in read_json(text.strip() or "[]")
            for route in _routes(entry, family)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Surroundings()
    words = (line.split() for line in forwarding.split("\n"))
    forwards = tuple(int(w[0]) for w in words if len(w) == 2 and w[0] in "46" and w[1] == "1")
    return Surroundings(interfaces=interfaces, routes=found, forwards=forwards, is_known=True)


def _interface(entry: Json) -> Interface:
    addresses = tuple(
        (_FAMILIES[info["family"]], int(ip_address(info["local"])))
        for info in entry.get("addr_info", [])
        if info.get("family") in _FAMILIES and "local" in info
    )
    return Interface(
        name=str(entry["ifname"]), addresses=addresses, kind=entry.get("link_type", "")
    )


def _routes(entry: Json, family: int) -> list[Route]:
    destination = entry.get("dst", "")
    if destination == "default":
        destination = "0.0.0.0/0" if family == 4 else "::/0"
    length = int(destination.partition("/")[2] or (32 if family == 4 else 128))
    devices = [entry["dev"]] if "dev" in entry else [n["dev"] for n in entry.get("nexthops", ())]
    if len(set(devices)) != 1 or entry.get("type", "unicast") != "unicast":
        return []
    return [
        Route(
            family=family,
            destinations=parse_network(destination),
            length=length,
            interface=str(devices[0]),
        )
    ]
