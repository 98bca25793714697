"""Sets of ``ipset save``, as iptables rules name them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.observe.firewall.model import Test
from pytest_nixos.observe.firewall.names import PROTOCOLS
from pytest_nixos.observe.firewall.spans import Spans, joined, only, parse_network

__all__ = ["IpSet", "parse_ipsets", "set_tests"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IpSet:
    """One set.

    :param kind: ``hash:ip,port``, ``bitmap:port``, ``list:set``, ...
    :param elements: each with its parts, as ``ipset`` writes them; those of ``nomatch`` come apart.
    """

    kind: str
    family: int = 4
    elements: tuple[tuple[str, ...], ...] = ()
    exceptions: bool = False


def parse_ipsets(text: str) -> Mapping[str, IpSet]:
    """Read ``ipset save``; lines that cannot be read are left out with their set."""
    kinds: dict[str, tuple[str, int]] = {}
    found: dict[str, list[tuple[str, ...]]] = {}
    odd: set[str] = set()
    for line in text.split("\n"):
        try:
            words = shlex.split(line)
        except ValueError:
            continue
        if len(words) >= 3 and words[0] == "create":
            kinds[words[1]] = (words[2], 6 if "inet6" in words else 4)
            if {"netmask", "bitmask", "markmask"} & set(words):
                odd.add(words[1])  # an element stands for more than it says
        elif len(words) >= 3 and words[0] == "add":
            found.setdefault(words[1], []).append(tuple(words[2].split(",")))
            if "nomatch" in words[3:]:
                odd.add(words[1])
    return {
        name: IpSet(
            kind=kind,
            family=family,
            elements=tuple(found.get(name, ())),
            exceptions=name in odd,
        )
        for name, (kind, family) in kinds.items()
    }


def set_tests(
    sets: Mapping[str, IpSet], name: str, directions: Sequence[str], *, family: int
) -> tuple[tuple[Test, ...], ...] | None:
    """Turn ``--match-set NAME src,dst`` into alternatives; ``None`` if the set cannot be read.

    :param directions: ``src`` or ``dst`` for each part of its elements.
    """
    found = sets.get(name)
    if found is None or found.exceptions:
        return None
    if found.kind == "list:set":
        inner = [set_tests(sets, e[0], directions, family=family) for e in found.elements]
        if None in inner:
            return None
        return tuple(t for tests in inner if tests is not None for t in tests)
    parts = found.kind.partition(":")[2].split(",")
    if len(directions) < len(parts):
        return None
    if found.family != family and parts != ["port"]:
        return ()
    alternatives = []
    for element in found.elements:
        if len(element) != len(parts):
            return None
        tests: list[Test] = []
        for part, value, way in zip(parts, element, directions, strict=False):
            more = _part(part, value, is_source=way == "src")
            if more is None:
                return None
            tests += more
        alternatives.append(tuple(tests))
    return tuple(alternatives)


def _part(kind: str, value: str, *, is_source: bool) -> list[Test] | None:
    if kind in ("ip", "net"):
        try:
            return [Test("saddr" if is_source else "daddr", parse_network(value))]
        except ValueError:
            return None
    if kind == "iface":
        return [Test("iif" if is_source else "oif", names=(value,))]
    if kind != "port":
        return None
    protocol, colon, ports = value.rpartition(":")
    first, _, last = ports.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()):
        return None
    spans: Spans = joined([(int(first), int(last or first))])
    # A bitmap of ports holds them for TCP and for UDP.
    protocols = only(
        *(n for p in (["tcp", "udp"] if not colon else [protocol]) if (n := PROTOCOLS.get(p)))
    )
    if not protocols:
        return None
    return [Test("protocol", protocols), Test("sport" if is_source else "dport", spans)]
