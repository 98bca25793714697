"""The statements of one nftables rule (libnftables-json(5)) into steps of the one language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pytest_nixos.observe.firewall.model import (
    Action,
    Assign,
    Branch,
    Chance,
    Choose,
    Match,
    Nat,
    Notrack,
    Reason,
    Step,
    Test,
    Verdict,
)
from pytest_nixos.observe.firewall.nft_values import (
    Field,
    Sets,
    UnjudgedError,
    alternatives,
    comparison,
    elements,
    read_field,
)
from pytest_nixos.observe.firewall.spans import Spans, joined, only, parse_network

__all__ = ["LIMITS", "VERDICTS", "RuleReader"]

Json = Any

VERDICTS = {v.value: v for v in Verdict}
# Statements that neither match nor decide. Of flowtables only packets of known connections take the
# short way.
_SILENT = frozenset(
    {"counter", "log", "comment", "last", "flow", "dup", "map", "secmark", "ct helper"}
    | {"ct timeout", "ct expectation", "reset", "optstrip", "tunnel"}
)
_ANSWERS = {
    "icmp": Test("family", only(4)),
    "icmpv6": Test("family", only(6)),
    "tcp reset": Test("protocol", only(6)),
}
#: Statements that hold up to a rate or a number.
LIMITS = frozenset({"limit", "quota", "ct count", "connlimit"})
_PLAIN: Mapping[str, Step] = {
    "notrack": Notrack(),
    "tproxy": Chance(Reason.UNKNOWN, "whether a transparent proxy listens"),
    "snat": Action(Verdict.ACCEPT),
    "masquerade": Action(Verdict.ACCEPT),
}
# Programs decide, or the packet leaves by another way.
_ELSEWHERE = frozenset({"queue", "synproxy", "fwd"})
_XT_TARGETS: Mapping[str, Sequence[Step]] = {
    "REJECT": (Action(Verdict.REJECT),),
    "MASQUERADE": (Action(Verdict.ACCEPT),),
    "SNAT": (Action(Verdict.ACCEPT),),
    "MARK": (Assign("mark", known=False),),
    "CONNMARK": (Assign("mark", known=False), Assign("ctmark", known=False)),
}
# JSON does not say what an xt match looks at, the text does.
_XT_PATTERNS = {
    **dict.fromkeys(
        ("conntrack", "state"),
        re.compile(r"ct state (?P<not>!= |! )?(?P<value>[\w,]+) (?:jump|goto|accept|return|drop)"),
    ),
    "rpfilter": re.compile(r"fib saddr .*oif (?P<not>!= )?0"),
    "addrtype": re.compile(r"fib (?P<what>saddr|daddr) type (?P<not>!= )?(?P<value>\w+)"),
    "pkttype": re.compile(r"pkttype (?P<not>!= )?(?P<value>\w+)"),
    "icmp": re.compile(r"icmp type (?P<not>!= )?(?P<value>[\w-]+) (?!icmp)"),
    "icmp6": re.compile(r"icmpv6 type (?P<not>!= )?(?P<value>[\w-]+) (?!icmp)"),
}
_XT_REASONS = {
    **dict.fromkeys(("limit", "hashlimit", "connlimit", "quota"), Reason.LIMIT),
    "recent": Reason.MEMORY,
}
_XT_DNAT = re.compile(r"dnat to \[?([\d.]+|[0-9a-f:]+)\]?(?::(\d+))?(?: |$)")


class RuleReader:
    """Reads the statements of one rule."""

    def __init__(self, sets: Sets, text: str) -> None:
        self._sets = sets
        self._text = text

    def steps(self, statements: Sequence[Json]) -> Iterator[Step]:
        for statement in statements:
            (name, body), *_ = (
                statement.items() if isinstance(statement, dict) else [(str(statement), None)]
            )
            try:
                yield from self._statement(name, body)
            except UnjudgedError as err:
                yield from _unjudged(name, str(err))

    def _statement(self, name: str, body: Json) -> Iterator[Step]:
        if name in VERDICTS:
            options = body if isinstance(body, dict) else {}
            if name == "reject" and options.get("type") in _ANSWERS:
                # nft leaves out the condition that its answer implies.
                yield Match(((_ANSWERS[options["type"]],),))
            yield Action(VERDICTS[name], options.get("target", ""))
        elif name in LIMITS:
            yield Chance(Reason.LIMIT, name)
        elif name in _ELSEWHERE:
            yield Chance(Reason.UNKNOWN, f"what becomes of it behind {name}", Verdict.DROP)
            yield Action(Verdict.ACCEPT)
        elif name in _PLAIN:
            yield _PLAIN[name]
        elif name not in _SILENT:
            reader: Mapping[str, Callable[[Json], Iterator[Step]]] = {
                "match": self._match,
                "vmap": self._vmap,
                "set": self._remember,
                "meter": self._remember,
                "mangle": self._mangle,
                "dnat": self._dnat,
                "redirect": self._dnat_here,
                "xt": self._xt,
            }
            if name not in reader:
                raise UnjudgedError(name)
            yield from reader[name](body)

    def _remember(self, body: Json) -> Iterator[Step]:
        """Read a statement that puts senders into a set, perhaps with a limit for each."""
        inner = body.get("stmt", []) if isinstance(body, dict) else []
        inner = inner if isinstance(inner, list) else [inner]
        if any(isinstance(s, dict) and LIMITS & s.keys() for s in inner):
            yield Chance(Reason.LIMIT, "a limit for each sender")

    def _match(self, body: Json) -> Iterator[Step]:
        op, right = body.get("op"), body.get("right")
        fields = self._fields(body.get("left"))
        yield from _implied(fields)
        if op in ("<", ">", "<=", ">="):
            if len(fields) != 1 or fields[0].mask is not None or fields[0].special:
                raise UnjudgedError(f"a comparison with {op}")
            dimension = fields[0].dimension
            yield Match(((Test(dimension, comparison(dimension, op, right)),),))
            return
        if op not in ("==", "!=", "in"):
            raise UnjudgedError(f"a comparison with {op}")
        is_set = isinstance(right, str) and right.startswith("@")
        is_set = is_set or (isinstance(right, dict) and "set" in right)
        values = elements(right, self._sets) if is_set else [right]
        found = [t for v in values for t in alternatives(fields, v, flags=op == "in")]
        yield Match(_merged(found), negated=op == "!=")

    def _vmap(self, body: Json) -> Iterator[Step]:
        fields = self._fields(body.get("key"))
        yield from _implied(fields)
        branches = []
        for tests, result in self._pairs(fields, body.get("data")):
            ((name, argument),) = result.items()
            target = argument.get("target", "") if isinstance(argument, dict) else ""
            if name not in VERDICTS:
                raise UnjudgedError(f"a verdict {name}")
            branches += [Branch(t, (Action(VERDICTS[name], target),)) for t in tests]
        yield Choose(tuple(branches))

    def _mangle(self, body: Json) -> Iterator[Step]:
        try:
            target = self._fields(body.get("key"))[0].dimension
        except UnjudgedError as err:
            if "broute" in str(err):
                # The frame may leave the bridge, as if it had come by its port.
                yield from _unjudged("vmap", "whether the port is one of a bridge, for this frame")
            return  # else a thing that no rule of ours can ask for again
        value = body.get("value")
        if isinstance(value, dict) and "map" in value:
            fields = self._fields(value["map"].get("key"))
            yield from _implied(fields)
            yield Choose(
                tuple(
                    Branch(t, (_assign(target, result),))
                    for tests, result in self._pairs(fields, value["map"].get("data"))
                    for t in tests
                )
            )
            return
        yield _assign(target, value)

    def _dnat_here(self, body: Json) -> Iterator[Step]:
        yield from self._nat(body if isinstance(body, dict) else {}, is_redirect=True)

    def _dnat(self, body: Json) -> Iterator[Step]:
        yield from self._nat(body if isinstance(body, dict) else {}, is_redirect=False)

    def _nat(self, body: Mapping[str, Json], *, is_redirect: bool) -> Iterator[Step]:
        address, port = body.get("addr"), body.get("port")
        if body.get("family") in ("ip", "ip6"):
            yield Match(((Test("family", only(4 if body["family"] == "ip" else 6)),),))
        for mapped in (address, port):
            if isinstance(mapped, dict) and "map" in mapped:
                fields = self._fields(mapped["map"].get("key"))
                yield from _implied(fields)
                yield Choose(
                    tuple(
                        Branch(
                            t,
                            (
                                _nat(
                                    result if mapped is address else address,
                                    port if mapped is address else result,
                                    is_redirect=is_redirect,
                                ),
                            ),
                        )
                        for tests, result in self._pairs(fields, mapped["map"].get("data"))
                        for t in tests
                    )
                )
                return
        yield _nat(address, port, is_redirect=is_redirect)

    def _xt(self, body: Json) -> Iterator[Step]:
        """Read what iptables-nft writes in its own words, as far as nft shows it."""
        name = str(body.get("name"))
        if body.get("type") == "target":
            yield from self._xt_target(name)
        elif name in _XT_REASONS:
            yield Chance(_XT_REASONS[name], name)
        elif name != "comment":
            yield self._xt_match(name)

    def _xt_match(self, name: str) -> Step:
        """Read what JSON leaves out from the rule's text.

        :raises UnjudgedError: if the text does not say it either.
        """
        pattern = _XT_PATTERNS.get(name)
        found = pattern.search(self._text) if pattern else None
        if found is None:
            raise UnjudgedError(f"a match of iptables, {name}")
        negated = bool(found["not"])
        if name == "rpfilter":
            return Match(((Test("honest", negated=not negated),),))
        field, flags = _xt_field(name, found.groupdict().get("what", ""))
        values = found["value"].split(",") if flags else found["value"]
        return Match(alternatives([field], values, flags=flags), negated=negated)

    def _xt_target(self, name: str) -> Iterator[Step]:
        if name in _XT_TARGETS:
            yield from _XT_TARGETS[name]
        elif name in ("DNAT", "REDIRECT", "NETMAP"):
            found = _XT_DNAT.search(self._text)
            if found:
                yield _nat(found[1], int(found[2]) if found[2] else None, is_redirect=False)
            else:
                yield Nat(address=())
        elif name in ("CT", "NOTRACK") and "notrack" in self._text:
            yield Notrack()
        elif name in ("NFQUEUE", "TPROXY", "SYNPROXY"):
            yield from _unjudged("vmap", f"what {name} does")

    def _fields(self, left: Json) -> Sequence[Field]:
        if isinstance(left, dict) and "concat" in left:
            return [read_field(part) for part in left["concat"]]
        return [read_field(left)]

    def _pairs(
        self, fields: Sequence[Field], data: Json
    ) -> Iterator[tuple[tuple[tuple[Test, ...], ...], Json]]:
        pairs = [p for p in elements(data, self._sets) if isinstance(p, list) and len(p) == 2]
        # The wildcard stands for what no other element names.
        for key, result in sorted(pairs, key=lambda pair: pair[0] == "*"):
            bare = key["elem"]["val"] if isinstance(key, dict) and "elem" in key else key
            yield alternatives(fields, bare, flags=False), result


def _xt_field(name: str, what: str) -> tuple[Field, bool]:
    """Return what a match of iptables looks at, and whether its value is made of bits."""
    if name in ("conntrack", "state"):
        return Field(dimension="ctstate"), True
    if name == "addrtype":
        return Field(special="fib-local" if what == "daddr" else "fib-source"), False
    dimensions = {"pkttype": "pkttype", "icmp": "icmp.type", "icmp6": "icmpv6.type"}
    return Field(dimension=dimensions[name]), False


def _unjudged(statement: str, about: str) -> Iterator[Step]:
    """What a statement that cannot be read may do: for a condition hold or not, for a map
    anything.
    """
    reason = Reason.MEMORY if about.startswith("rules fill") else Reason.UNKNOWN
    reason = Reason.LIMIT if about.startswith("a limit") else reason
    yield Chance(reason, about)
    if statement == "vmap":
        yield Chance(reason, f"{about}: the verdict", Verdict.DROP)
        yield Action(Verdict.ACCEPT)
    elif statement in ("dnat", "redirect"):
        yield Nat(address=())
    elif statement == "mangle":
        yield Assign("mark", known=False)
        yield Assign("ctmark", known=False)


def _implied(fields: Sequence[Field]) -> Iterator[Step]:
    implied = tuple(dict.fromkeys(test for one in fields for test in one.implied))
    if implied:
        yield Match((implied,))


def _merged(found: Sequence[tuple[Test, ...]]) -> tuple[tuple[Test, ...], ...]:
    """Join alternatives that are one plain test of the same dimension."""
    spans: dict[str, list[tuple[int, int]]] = {}
    names: dict[str, list[str]] = {}
    rest: list[tuple[Test, ...]] = []
    for tests in found:
        one = tests[0] if len(tests) == 1 else None
        if one is None or one.negated or one.mask is not None:
            rest.append(tests)
        elif one.names:
            names.setdefault(one.dimension, []).extend(one.names)
        elif one.values:
            spans.setdefault(one.dimension, []).extend(one.values)
        else:
            rest.append(tests)
    return (
        *((Test(d, joined(values)),) for d, values in spans.items()),
        *((Test(d, names=tuple(n)),) for d, n in names.items()),
        *rest,
    )


def _assign(target: str, value: Json) -> Assign:
    """Read ``mark set ...``: a number, another field, or bits of one."""
    try:
        source, keep, flip = _bits(value, target)
    except (UnjudgedError, TypeError, ValueError):
        return Assign(target, known=False)
    return Assign(target, source, keep, flip)


def _bits(value: Json, target: str) -> tuple[str, int, int]:
    every = (1 << 32) - 1
    if isinstance(value, dict) and len(value) == 1:
        ((op, body),) = value.items()
        if op in ("&", "|", "^") and isinstance(body, list) and len(body) == 2:
            source, keep, flip = _bits(body[0], target)
            if not isinstance(body[1], int):
                raise UnjudgedError("a value that is made of others")
            bits = body[1]
            if op == "&":
                return source, keep & bits, flip & bits
            if op == "|":
                return source, keep & ~bits & every, flip & ~bits & every | bits
            return source, keep, flip ^ bits
        found = read_field(value)
        if found.implied or found.special or found.mask is not None:
            raise UnjudgedError("a value that is read from the packet")
        return found.dimension, every, 0
    return "", 0, int(value, 0) if isinstance(value, str) else int(value)


def _nat(address: Json, port: Json, *, is_redirect: bool) -> Nat:
    if isinstance(address, dict) and "concat" in address:
        address, port = (*address["concat"], port)[:2]
    return Nat(address=_addresses(address), port=_port_spans(port), is_redirect=is_redirect)


def _addresses(value: Json) -> Spans | None:
    """Read where a packet is sent; nothing at all (``()``) stands for what cannot be read."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return parse_network(value)
        if "range" in value:
            first, last = value["range"]
            return parse_network(f"{first}-{last}")
        if "prefix" in value:
            return parse_network(f"{value['prefix']['addr']}/{value['prefix']['len']}")
    except (ValueError, TypeError, KeyError):
        return ()
    return ()


def _port_spans(value: Json) -> Spans | None:
    if value is None:
        return None
    if isinstance(value, int):
        return only(value)
    if isinstance(value, dict) and "range" in value:
        first, last = value["range"]
        return joined([(int(first), int(last))])
    return joined([(0, 65535)])
