"""Interfaces, routes and rules of routing, from ``ip -json``, for the questions that a packet alone
does not answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from pytest_nixos.observe.firewall.model import Chance, Match, Reason, Rule, Step, Test, gathered
from pytest_nixos.observe.firewall.names import PROTOCOLS
from pytest_nixos.observe.firewall.routing import (
    MAIN_TABLE,
    Fate,
    Interface,
    Policy,
    Route,
    Surroundings,
)
from pytest_nixos.observe.firewall.spans import joined, only, parse_network
from pytest_nixos.observe.text import read_json

__all__ = ["parse_surroundings"]

Json = Any

_FAMILIES = {"inet": 4, "inet6": 6}
_EVERY_BIT = (1 << 32) - 1
# What a route's type does to a packet from outside; ip-route(8). "throw" asks the next rule.
_FATES = {
    "unicast": Fate.AWAY,
    "local": Fate.LOCAL,
    "anycast": Fate.LOCAL,
    "blackhole": Fate.REFUSED,
    "unreachable": Fate.REFUSED,
    "prohibit": Fate.REFUSED,
    "throw": Fate.NO_ROUTE,
}
# What of a rule says nothing about which packets it is for.
_PLAIN_KEYS = frozenset({"priority", "table", "action", "protocol", "flags", "realms", "not"})
_READ_KEYS = frozenset(
    {"src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "iif", "ipproto", "sport", "dport"}
    | {"sport_start", "sport_end", "dport_start", "dport_end", "suppress_prefixlen"}
)
_PLAIN_TABLES = ("local", "main", "default")


def parse_surroundings(
    *,
    addresses: str,
    routes: Sequence[tuple[int, str]],
    forwarding: str,
    policies: Sequence[tuple[int, str]] = (),
    senders: str = "",
) -> Surroundings:
    """Read what the guest told; what cannot be read leaves the whole unknown.

    :param addresses: ``ip -json -details address``.
    :param routes: family to ``ip -json route show table all``.
    :param forwarding: lines of family and 0 or 1.
    :param policies: family to ``ip -json rule``; a kernel without policy routing shows none.
    :param senders: lines of interface (``all``, ``default``) and its ``rp_filter``.
    """
    try:
        interfaces = tuple(_interface(entry) for entry in read_json(addresses) if entry)
        found = tuple(
            route
            for family, text in routes
            for entry in read_json(text.strip() or "[]")
            for route in _routes(entry, family)
        )
        rules = tuple(
            rule
            for family, text in policies
            for rule in _policies(read_json(text.strip() or "[]"), family)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return Surroundings()
    words = (line.split() for line in forwarding.split("\n"))
    forwards = tuple(int(w[0]) for w in words if len(w) == 2 and w[0] in "46" and w[1] == "1")
    return Surroundings(
        interfaces=interfaces,
        routes=found,
        forwards=forwards,
        is_known=True,
        policies=rules,
        checks_senders=_checks_senders(senders),
    )


def _checks_senders(text: str) -> bool:
    """Whether the kernel looks for forged senders on every interface: what is said for all and for
    one counts, whichever is more; ip-sysctl.rst.
    """
    words = (line.split() for line in text.split("\n"))
    found = {w[0]: w[1] != "0" for w in words if len(w) == 2}
    own = [on for name, on in found.items() if name not in ("all", "default", "lo")]
    return bool(own) and all(on or found.get("all", False) for on in own)


def _interface(entry: Json) -> Interface:
    infos = [info for info in entry.get("addr_info", []) if info.get("family") in _FAMILIES]
    link = entry.get("linkinfo", {})
    return Interface(
        name=str(entry["ifname"]),
        addresses=tuple(
            (_FAMILIES[info["family"]], int(ip_address(info["local"])))
            for info in infos
            if "local" in info
        ),
        kind=entry.get("link_type", ""),
        broadcasts=tuple(n for info in infos for n in _broadcasts(info)),
        master=str(entry.get("master", "")),
        master_kind=str(link.get("info_slave_kind", "")).removesuffix("_slave"),
        device_kind=str(link.get("info_kind", "")),
    )


def _broadcasts(info: Mapping[str, Json]) -> Iterator[int]:
    """Give the addresses that are for all of an address' network: the last one, and what the address
    says; fib_add_ifaddr() in Linux.
    """
    if info.get("family") != "inet" or info.get("scope") == "host":
        return
    if "broadcast" in info:
        yield int(ip_address(info["broadcast"]))
    length = int(info.get("prefixlen", 32))
    if "local" in info and length < 31:
        yield int(ip_address(info["local"])) | ((1 << (32 - length)) - 1)


def _routes(entry: Json, family: int) -> list[Route]:
    destination = entry.get("dst", "")
    if destination == "default":
        destination = "0.0.0.0/0" if family == 4 else "::/0"
    fate = _FATES.get(entry.get("type", "unicast"))
    if fate is None:
        return []  # broadcast and multicast, which go their own way
    length = int(destination.partition("/")[2] or (32 if family == 4 else 128))
    hops = entry.get("nexthops", ())
    devices = {str(d) for d in (entry.get("dev"), *(hop.get("dev") for hop in hops)) if d}
    return [
        Route(
            family=family,
            destinations=parse_network(destination),
            length=length,
            interface=devices.pop() if len(devices) == 1 else "",
            table=str(entry.get("table", MAIN_TABLE)),
            fate=fate,
        )
    ]


def _policies(entries: Sequence[Json], family: int) -> list[Policy]:
    """Read the rules; none where they are the kernel's first ones."""
    if all(_is_plain(entry) for entry in entries):
        return []
    return [_policy(entry, family) for entry in entries]


def _is_plain(entry: Json) -> bool:
    told = entry.keys() - _PLAIN_KEYS
    everybody = told == {"src"} and entry["src"] == "all"
    return everybody and "action" not in entry and entry.get("table") in _PLAIN_TABLES


def _policy(entry: Json, family: int) -> Policy:
    steps: list[Step] = list(_steps(entry))
    action = str(entry.get("action", ""))
    table = "" if action else str(entry.get("table", ""))
    fate = _FATES.get(action, Fate.UNKNOWN) if action != "nop" else Fate.NO_ROUTE
    if not action and "suppress_prefixlen" in entry:
        fate = Fate.UNKNOWN
        table = ""
    rule = Rule(table="", chain="", text=_text(entry, family), steps=gathered(steps))
    return Policy(family=family, rule=rule, table=table, fate=fate if not table else Fate.AWAY)


def _steps(entry: Mapping[str, Json]) -> Iterator[Step]:
    if "oif" in entry:
        # Only packets of the guest's own sockets that are bound to an interface have one.
        yield Match((), negated="not" in entry)
        return
    if unread := sorted(entry.keys() - _PLAIN_KEYS - _READ_KEYS):
        yield Chance(Reason.UNKNOWN, f"whether it fits: {', '.join(unread)}")
        if "not" in entry:
            return
    yield Match((tuple(_tests(entry)),), negated="not" in entry)


def _tests(entry: Mapping[str, Json]) -> Iterator[Test]:
    for key, dimension in (("src", "saddr"), ("dst", "daddr")):
        if entry.get(key, "all") != "all":
            length = f"/{entry[f'{key}len']}" if f"{key}len" in entry else ""
            yield Test(dimension, parse_network(f"{entry[key]}{length}"))
    if "fwmark" in entry:
        mask = _number(entry.get("fwmask", _EVERY_BIT))
        yield Test("mark", only(_number(entry["fwmark"])), mask=mask)
    if "iif" in entry:
        yield Test("iif", names=(str(entry["iif"]),))
    if "ipproto" in entry:
        name = str(entry["ipproto"])
        yield Test("protocol", only(PROTOCOLS[name] if name in PROTOCOLS else int(name)))
    for key in ("sport", "dport"):
        if f"{key}_start" in entry:
            ends = int(entry[f"{key}_start"]), int(entry[f"{key}_end"])
            yield Test(key, joined([ends]))
        elif key in entry:
            yield Test(key, only(int(entry[key])))


def _number(value: Json) -> int:
    return int(value, 0) if isinstance(value, str) else int(value)


def _text(entry: Mapping[str, Json], family: int) -> str:
    """Write a rule as ``ip rule`` shows it."""
    words = [f"ip {'-6 ' if family == 6 else ''}rule {entry.get('priority', '')}:"]
    words += ["not"] if "not" in entry else []
    length = f"/{entry['srclen']}" if "srclen" in entry else ""
    words.append(f"from {entry.get('src', 'all')}{length}")
    if "dst" in entry:
        words.append(f"to {entry['dst']}" + (f"/{entry['dstlen']}" if "dstlen" in entry else ""))
    if "fwmark" in entry:
        mask = f"/{entry['fwmask']}" if "fwmask" in entry else ""
        words.append(f"fwmark {entry['fwmark']}{mask}")
    said = {"src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "priority", "not", "table"}
    for key in entry.keys() - said - {"protocol", "flags", "action"}:
        words.append(f"{key} {entry[key]}" if entry[key] is not None else key)
    words.append(str(entry["action"]) if "action" in entry else f"lookup {entry.get('table', '')}")
    return " ".join(words)
