"""What the expressions of an nftables rule look at, and the values that they are compared with
(libnftables-json(5)).
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_nixos.observe.firewall.model import TRACKED, Test, universe
from pytest_nixos.observe.firewall.names import NAMES, PROTOCOLS
from pytest_nixos.observe.firewall.spans import Spans, joined, only, parse_network

__all__ = [
    "Field",
    "Sets",
    "UnjudgedError",
    "alternatives",
    "comparison",
    "destination_types",
    "elements",
    "read_field",
]

Json = Any

_PORT_PROTOCOLS = ("tcp", "udp", "udplite", "sctp", "dccp")
_FLAGS = frozenset({"ctstate", "ctstatus", "tcp.flags"})
_META = {
    "iifname": "iif",
    "iif": "iif",
    "oifname": "oif",
    "oif": "oif",
    "ibrname": "ibr",
    "l4proto": "protocol",
    "nfproto": "family",
    "protocol": "ethertype",
    "mark": "mark",
    "pkttype": "pkttype",
    "length": "meta.length",
}
# nft 0.9.0 called it secpath.
_IPSEC = ("ipsec", "secpath")
_CT = {"status": "ctstatus", "mark": "ctmark"}
_CT_ORIGINAL = {
    "saddr": "ct.saddr",
    "ip saddr": "ct.saddr",
    "ip6 saddr": "ct.saddr",
    "daddr": "ct.daddr",
    "ip daddr": "ct.daddr",
    "ip6 daddr": "ct.daddr",
    "proto-src": "ct.sport",
    "proto-dst": "ct.dport",
    "protocol": "protocol",
}
_IP_FIELDS = {"saddr": "saddr", "daddr": "daddr", "protocol": "protocol", "nexthdr": "protocol"}
_TH_PORTS = {(0, 16): "sport", (16, 16): "dport"}
_ENUMERABLE_BITS = 16


class UnjudgedError(Exception):
    """An expression that cannot be told from a packet alone; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing that a rule looks at.

    :param implied: what a packet must be to have it at all.
    :param mask: bits that are looked at, ``None`` for all.
    :param special: ``fib-local``, ``fib-source``, ``fib-route``, ``direction`` or ``ipsec``: not a number.
    """

    dimension: str = ""
    implied: tuple[Test, ...] = ()
    mask: int | None = None
    special: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sets:
    """The named sets and maps of one table.

    :param filled: names of those that rules themselves fill or empty.
    :param limited: names of those whose elements match up to a rate only.
    """

    contents: Mapping[str, Sequence[Json]] = field(default_factory=dict)
    filled: frozenset[str] = frozenset()
    limited: frozenset[str] = frozenset()


def read_field(left: Json) -> Field:
    """Read the left side of a comparison.

    :raises UnjudgedError: if it is nothing that a packet alone tells.
    """
    if not isinstance(left, dict) or len(left) != 1:
        raise UnjudgedError("an expression of its own kind")
    ((name, body),) = left.items()
    if name == "&" and isinstance(body, list) and len(body) == 2:
        inner = read_field(body[0])
        mask = _number(body[1], inner.dimension)
        return Field(dimension=inner.dimension, implied=inner.implied, mask=mask)
    if not isinstance(body, dict):
        raise UnjudgedError(name)
    match name:
        case "meta":
            return _meta(str(body.get("key", "")))
        case "payload":
            return _payload(body)
        case "ct":
            return _ct(body)
        case "fib":
            return _fib(body)
        case _:
            raise UnjudgedError(name)


def _meta(key: str) -> Field:
    if key in _IPSEC:
        return Field(special="ipsec")
    if key not in _META:
        raise UnjudgedError(f"meta {key}")
    return Field(dimension=_META[key])


def _payload(body: Mapping[str, Json]) -> Field:
    if "base" in body:
        place = (body.get("offset"), body.get("len"))
        if body["base"] == "th" and place in _TH_PORTS:
            return Field(dimension=_TH_PORTS[place])
        return Field(dimension=f"raw.{body['base']}.{place[0]}.{place[1]}")
    protocol, name = str(body.get("protocol", "")), str(body.get("field", ""))
    if protocol in ("ip", "ip6"):
        dimension = _IP_FIELDS.get(name, f"{protocol}.{name}")
        return Field(dimension=dimension, implied=(_is("family", 4 if protocol == "ip" else 6),))
    if protocol == "ether":
        return Field(dimension="ethertype" if name == "type" else f"ether.{name}")
    if protocol != "th" and protocol not in PROTOCOLS:
        raise UnjudgedError(f"{protocol} {name}")
    has_ports = protocol == "th" or protocol in _PORT_PROTOCOLS
    dimension = name if has_ports and name in ("sport", "dport") else f"{protocol}.{name}"
    implied = () if protocol == "th" else (_is("protocol", PROTOCOLS[protocol]),)
    return Field(dimension=dimension, implied=implied)


def _ct(body: Mapping[str, Json]) -> Field:
    key, way = str(body.get("key", "")), body.get("dir")
    if way is None and key == "state":
        return Field(dimension="ctstate")
    # All but the state needs a packet that belongs to a connection.
    tracked = Test("ctstate", TRACKED)
    if way is None and key in _CT:
        return Field(dimension=_CT[key], implied=(tracked,))
    if key == "direction":
        return Field(special="direction", implied=(tracked,))
    if way == "original" and key in _CT_ORIGINAL:
        family = {"ip": (_is("family", 4),), "ip6": (_is("family", 6),)}
        implied = (tracked, *family.get(key.partition(" ")[0], ()))
        return Field(dimension=_CT_ORIGINAL[key], implied=implied)
    raise UnjudgedError(f"ct {way or ''} {key}".replace("  ", " "))


def _fib(body: Mapping[str, Json]) -> Field:
    flags = body.get("flags", [])
    flags = [flags] if isinstance(flags, str) else flags
    result = body.get("result")
    if result == "type":
        return Field(special="fib-local" if "daddr" in flags else "fib-source")
    if "saddr" in flags and result in ("oif", "oifname"):
        return Field(special="fib-route")
    raise UnjudgedError("fib")


def _is(dimension: str, value: int) -> Test:
    return Test(dimension, only(value))


def elements(data: Json, sets: Sets) -> list[Json]:
    """Return the elements of a set, named or not, without what is said about them (timeouts,
    counters).

    :raises UnjudgedError: if rules fill it, or it is not known.
    """
    if isinstance(data, str) and data.startswith("@"):
        name = data[1:]
        if name in sets.filled:
            raise UnjudgedError(f"rules fill the set {name}")
        if name in sets.limited:
            raise UnjudgedError(f"a limit in the set {name}")
        if name not in sets.contents:
            raise UnjudgedError(f"the set {name} is not shown")
        data = sets.contents[name]
    elif isinstance(data, dict) and "set" in data:
        data = data["set"]
        if isinstance(data, str):
            return elements(data, sets)
    items = data if isinstance(data, list) else [data]
    return [_bare(item) for item in items]


def _bare(item: Json) -> Json:
    if isinstance(item, dict) and isinstance(item.get("elem"), dict) and "val" in item["elem"]:
        return item["elem"]["val"]
    return item


def alternatives(
    fields: Sequence[Field], value: Json, *, flags: bool
) -> tuple[tuple[Test, ...], ...]:
    """Turn "`fields` are `value`" into alternatives of tests; what the fields imply is not among
    them.

    :param value: one value, or ``{"concat": [...]}`` with one for each field.
    :param flags: whether any of the bits is enough.
    :raises UnjudgedError: if the value has no number that we know.
    """
    if value == "*":
        return ((),)
    parts = [value]
    if isinstance(value, dict) and "concat" in value:
        parts = value["concat"]
    if len(parts) != len(fields):
        raise UnjudgedError("a concatenation of another length")
    found: list[tuple[Test, ...]] = [()]
    for one, part in zip(fields, parts, strict=True):
        tests = _tests(one, _bare(part), flags=flags)
        found = [(*before, *more) for before in found for more in tests]
    return tuple(found)


def _tests(one: Field, value: Json, *, flags: bool) -> tuple[tuple[Test, ...], ...]:
    if one.special:
        return _special(one.special, value)
    dimension = one.dimension
    if dimension in ("iif", "oif", "ibr"):
        if not isinstance(value, str):
            raise UnjudgedError("an interface that is gone")
        return ((Test(dimension, names=(value,)),),)
    if flags and dimension in _FLAGS:
        bits = _number(value, dimension)
        return ((Test(dimension, only(0), negated=True, mask=bits),),)
    spans = _spans(value, dimension)
    if one.mask is None:
        return ((Test(dimension, spans),),)
    if dimension not in _FLAGS and (plain := _unmasked(dimension, one.mask, spans)) is not None:
        return ((Test(dimension, plain),),)
    return ((Test(dimension, spans, mask=one.mask),),)


def _special(special: str, value: Json) -> tuple[tuple[Test, ...], ...]:
    names = [str(n) for n in (value if isinstance(value, list) else [value])]
    if special == "direction":
        return ((),) if "original" in names or "0" in names else ()
    if special == "fib-local":
        return destination_types(names)
    if special == "fib-source":
        return ((),) if "unicast" in names else ()
    # A stranger's packet did not come out of IPsec.
    if special == "ipsec":
        return () if value in (True, "1", 1) else ((),)
    if isinstance(value, bool):
        return ((Test("honest", negated=not value),),)
    if isinstance(value, str) and value not in ("0", ""):
        return ((Test("honest"), Test("iif", names=(value,))),)
    return ((Test("honest", negated=True),),)


def destination_types(names: Collection[str]) -> tuple[tuple[Test, ...], ...]:
    """Return alternatives for what the routing tables call a destination: ``local``, ``unicast``
    for somebody else's address, ``broadcast``, ``multicast``; no stranger's packet has another.
    """
    alone = Test("cast", only(0))
    known: Mapping[str, tuple[Test, ...]] = {
        "local": (Test("local"), alone),
        "unicast": (Test("local", negated=True), alone),
        "broadcast": (Test("cast", only(1)),),
        "multicast": (Test("cast", only(2)),),
    }
    return tuple(tests for name, tests in known.items() if name in names)


def comparison(dimension: str, op: str, value: Json) -> Spans:
    """Return the values for which ``dimension op value`` holds.

    :raises UnjudgedError: if they have no number.
    """
    number = _number(value, dimension)
    _, last = universe(dimension)[0]
    match op:
        case "<":
            return joined([(0, number - 1)])
        case "<=":
            return joined([(0, number)])
        case ">":
            return joined([(number + 1, last)])
        case _:
            return joined([(number, last)])


def _number(value: Json, dimension: str) -> int:
    """Read one number, or several bits that are or-ed."""
    if isinstance(value, dict) and "|" in value:
        value = value["|"]
    if isinstance(value, list):
        bits = 0
        for item in value:
            bits |= _number(item, dimension)
        return bits
    spans = _spans(value, dimension)
    if len(spans) != 1 or spans[0][0] != spans[0][1]:
        raise UnjudgedError(f"{dimension} {value}")
    return spans[0][0]


def _spans(value: Json, dimension: str) -> Spans:
    if isinstance(value, bool) or value is None:
        raise UnjudgedError(f"{dimension} {value}")
    if isinstance(value, int):
        if dimension == "family":
            return only({2: 4, 10: 6}.get(value, value))
        return only(value)
    if isinstance(value, list):
        return only(_number(value, dimension))
    if isinstance(value, dict):
        if "prefix" in value:
            prefix = value["prefix"]
            return _network(f"{prefix['addr']}/{prefix['len']}", dimension)
        if "range" in value:
            first, last = (_number(end, dimension) for end in value["range"])
            return joined([(first, last)])
        if "|" in value:
            return only(_number(value, dimension))
        raise UnjudgedError(f"{dimension}: {next(iter(value), '')}")
    return _named(str(value), dimension)


def _named(text: str, dimension: str) -> Spans:
    names = NAMES.get(dimension, {})
    if text in names:
        return only(names[text])
    try:
        return only(int(text, 0))
    except ValueError:
        pass
    if dimension.startswith("ether.") and text.count(":") == 5:
        try:
            return only(int(text.replace(":", ""), 16))
        except ValueError as err:
            raise UnjudgedError(f"{dimension} {text}") from err
    return _network(text, dimension)


def _network(text: str, dimension: str) -> Spans:
    if dimension.removeprefix("ct.") not in ("saddr", "daddr"):
        raise UnjudgedError(f"{dimension} {text}")
    try:
        return parse_network(text)
    except ValueError as err:
        raise UnjudgedError(f"{dimension} {text}") from err


@functools.lru_cache(maxsize=256)
def _unmasked(dimension: str, mask: int, spans: Spans) -> Spans | None:
    """Return the values whose masked bits are in `spans`, where they can be listed."""
    _, last = universe(dimension)[0]
    if last >> _ENUMERABLE_BITS:
        return None
    fitting = [v for v in range(last + 1) if any(a <= v & mask <= b for a, b in spans)]
    return joined((v, v) for v in fitting)
