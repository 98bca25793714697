"""nftables rulesets, from ``nft -j list ruleset`` (libnftables-json(5)) into filter rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_nixos.nix.declared import PortRange
from pytest_nixos.observe.filtering import Chain, Condition, FilterRule, Kind, Verdict

__all__ = ["parse_nft", "parse_nft_text"]

Json = Any
Sets = Mapping[tuple[str, str, str], Sequence[Json]]

_FAMILIES = {"inet": ("ip", "ip6"), "ip": ("ip",), "ip6": ("ip6",)}
_VERDICTS = {v.value: v for v in Verdict}
# Statements that neither match nor decide.
_SILENT = frozenset({"counter", "log", "comment", "mangle", "notrack", "set", "meter", "last"})
_META = {
    "iifname": Kind.INTERFACE,
    "iif": Kind.INTERFACE,
    "l4proto": Kind.PROTOCOL,
    "nfproto": Kind.FAMILY,
}
_NFPROTO = {"ipv4": "ip", "ipv6": "ip6"}
_PROTOCOL_NAMES = {"ipv6-icmp": "icmpv6", "1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6"}
_HANDLE = re.compile(r"^(.*?)\s*# handle (\d+)$")
# JSON does not say what an xt match looks at, the text does.
_XT_STATES = re.compile(r"ct state ([\w,]+) (?:jump|goto|accept|return)")
_COUNTER = re.compile(r"counter packets \d+ bytes \d+ ?")
_TABLE_LINE = re.compile(r"^table (\w+) (\S+) \{")


def parse_nft(document: Json, text: str = "") -> Mapping[str, Mapping[str, Chain]]:
    """Turn a ruleset into chains by table (``inet nixos-fw``) and name.

    :param document: what ``nft -j list ruleset`` printed, decoded.
    :param text: what ``nft -a list ruleset`` printed: the rules' own wording, found by their handles.
    :raises KeyError: or another LookupError, TypeError, ValueError or AttributeError: if it is no such document.
    """
    entries = [entry for entry in document["nftables"] if isinstance(entry, dict)]
    texts = parse_nft_text(text)
    sets: Sets = {
        (s["family"], s["table"], s["name"]): s.get("elem", [])
        for entry in entries
        for s in (entry.get("set") or entry.get("map") or {},)
        if {"family", "table", "name"} <= s.keys()
    }
    rules: dict[tuple[str, str], list[FilterRule]] = {}
    for rule in (entry["rule"] for entry in entries if "rule" in entry):
        table = f"{rule.get('family')} {rule.get('table')}"
        wording = texts.get((table, rule.get("handle", -1)), json.dumps(rule.get("expr", [])))
        found = rules.setdefault((table, rule.get("chain", "")), [])
        found.extend(_rules(rule, wording, sets))
    tables: dict[str, dict[str, Chain]] = {}
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        family, name = chain.get("family", ""), chain.get("name", "")
        table = f"{family} {chain.get('table')}"
        tables.setdefault(table, {})[name] = Chain(
            table=table,
            name=name,
            rules=tuple(rules.get((table, name), ())),
            families=_FAMILIES.get(family, ()),
            hook=chain.get("hook", ""),
            policy=_VERDICTS.get(chain.get("policy", "accept"), Verdict.ACCEPT),
            priority=chain["prio"] if isinstance(chain.get("prio"), int) else 0,
            kind=chain.get("type", ""),
        )
    return tables


def parse_nft_text(text: str) -> Mapping[tuple[str, int], str]:
    """Read ``nft -a list ruleset``: (table, handle) to the rule's wording on one line."""
    found: dict[tuple[str, int], str] = {}
    table, pending = "", ""
    for raw in text.splitlines():
        line = raw.strip()
        if match := _TABLE_LINE.match(line):
            table, pending = f"{match[1]} {match[2]}", ""
            continue
        if line.startswith(("chain ", "set ", "map ", "type ", "elements ", "flags ")):
            pending = ""
            continue
        line = f"{pending} {line}".strip()
        handle = _HANDLE.match(line)
        if handle:
            found[table, int(handle[2])] = _COUNTER.sub("", handle[1])
        # A verdict map is broken over several lines; only the last carries the handle.
        pending = line if not handle and line.count("{") > line.count("}") else ""
    return found


def _rules(rule: Json, text: str, sets: Sets) -> Iterator[FilterRule]:
    """Yield a rule; one with a verdict map becomes one for each element."""
    scope = (rule.get("family", ""), rule.get("table", ""))
    chain = rule.get("chain", "")
    conditions: list[Condition] = []
    for statement in rule.get("expr", []):
        name, body = _plain(statement, text)
        if name == "match":
            conditions += _match(body, scope, sets)
        elif name == "vmap":
            for extra, verdict, target in _vmap(body, scope, sets):
                yield _rule(chain, text, (*conditions, *extra), verdict, target)
            return
        elif name in _VERDICTS:
            target = body.get("target", "") if isinstance(body, dict) else ""
            yield _rule(chain, text, tuple(conditions), _VERDICTS[name], target)
            return
        elif name == "queue":
            # A program decides.
            yield _rule(chain, text, (*conditions, _other()), Verdict.ACCEPT)
            return
        elif name not in _SILENT:
            conditions.append(_other())  # limit, fib, an xt match, ...
    yield _rule(chain, text, tuple(conditions), Verdict.CONTINUE)


def _plain(statement: Json, text: str) -> tuple[str, Json]:
    """Return a statement's name and body; what iptables-nft writes in its own words becomes nft's."""
    (name, body), *_ = statement.items() if isinstance(statement, dict) else [(statement, None)]
    if name != "xt":
        return name, body
    if isinstance(body, dict) and body.get("type") == "target":
        # Of the targets without a statement of nft's own only REJECT decides.
        return ("reject" if body.get("name") == "REJECT" else "log"), None
    if states := _XT_STATES.match(text):
        left = {"ct": {"key": "state"}}
        return "match", {"op": "in", "left": left, "right": states[1].split(",")}
    return name, body


def _rule(
    chain: str, text: str, conditions: tuple[Condition, ...], verdict: Verdict, target: str = ""
) -> FilterRule:
    return FilterRule(chain=chain, text=text, conditions=conditions, verdict=verdict, target=target)


def _match(body: Json, scope: tuple[str, str], sets: Sets) -> Sequence[Condition]:
    negated = body.get("op") == "!="
    if body.get("op") not in ("==", "in", "!="):
        return [_other()]
    return _compare(body.get("left"), _values(body.get("right"), scope, sets), negated=negated)


def _compare(left: Json, values: Sequence[Json] | None, *, negated: bool) -> Sequence[Condition]:
    """Turn ``left == values`` into conditions; naming a header implies its protocol."""
    if not isinstance(left, dict) or values is None:
        return [_other()]
    if "meta" in left:
        kind = _META.get(left["meta"].get("key", ""))
        return [_named(kind, values, negated=negated)] if kind else [_other()]
    if "ct" in left:
        is_state = left["ct"].get("key") == "state"
        return [_named(Kind.STATE, values, negated=negated)] if is_state else [_other()]
    if "payload" in left:
        return _payload(left["payload"], values, negated=negated)
    return [_other()]


def _payload(payload: Json, values: Sequence[Json], *, negated: bool) -> Sequence[Condition]:
    protocol, header_field = payload.get("protocol"), payload.get("field")
    if header_field == "dport" and protocol in ("tcp", "udp", "th"):
        ranges = _ports(values)
        port = Condition(kind=Kind.PORT, ports=ranges, negated=negated) if ranges else _other()
        implied = ("tcp", "udp") if protocol == "th" else (protocol,)
        return [Condition(kind=Kind.PROTOCOL, values=implied), port]
    if protocol in ("icmp", "icmpv6"):
        kind = Kind.ICMP_TYPE if header_field == "type" else Kind.OTHER
        names = tuple(str(v) for v in values)
        type_is = Condition(kind=kind, values=names, negated=negated)
        return [Condition(kind=Kind.PROTOCOL, values=(protocol,)), type_is]
    if protocol in ("ip", "ip6"):
        family = Condition(kind=Kind.FAMILY, values=(protocol,))
        if header_field in ("protocol", "nexthdr"):
            return [family, _named(Kind.PROTOCOL, values, negated=negated)]
        return [family, _other()]
    if protocol in ("tcp", "udp", "sctp", "dccp", "udplite", "esp", "ah"):
        return [Condition(kind=Kind.PROTOCOL, values=(protocol,)), _other()]
    return [_other()]


def _named(kind: Kind, values: Sequence[Json], *, negated: bool) -> Condition:
    names = []
    for value in values:
        if not isinstance(value, str | int):
            return _other()
        name = str(value)
        names.append(_PROTOCOL_NAMES.get(name, name) if kind is Kind.PROTOCOL else name)
    if kind is Kind.FAMILY:
        names = [_NFPROTO.get(name, name) for name in names]
    return Condition(kind=kind, values=tuple(names), negated=negated)


def _ports(values: Sequence[Json]) -> tuple[PortRange, ...]:
    ranges = []
    for value in values:
        ends = value["range"] if isinstance(value, dict) and "range" in value else [value, value]
        if not all(isinstance(end, int) for end in ends) or len(ends) != 2:
            return ()
        ranges.append(PortRange(first=ends[0], last=ends[1]))
    return tuple(ranges)


def _values(right: Json, scope: tuple[str, str], sets: Sets) -> Sequence[Json] | None:
    """Return the values on the right side of a match as a flat list; ``None`` if they cannot be listed."""
    if isinstance(right, str) and right.startswith("@"):
        right = sets.get((*scope, right[1:]))
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    if right is None:
        return None
    items = right if isinstance(right, list) else [right]
    # An element with a timeout, counter or comment is wrapped.
    return [i["elem"]["val"] if isinstance(i, dict) and "elem" in i else i for i in items]


def _vmap(
    body: Json, scope: tuple[str, str], sets: Sets
) -> Iterator[tuple[Sequence[Condition], Verdict, str]]:
    pairs = [
        pair
        for pair in _values(body.get("data"), scope, sets) or []
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict)
    ]
    named = [v for key, _ in pairs if key != "*" for v in _values(key, scope, sets) or []]
    for key, statement in pairs:
        ((name, argument), *_) = statement.items()
        # The wildcard stands for what no other element names.
        values = named if key == "*" else _values(key, scope, sets)
        conditions = _compare(body.get("key"), values, negated=key == "*")
        target = argument.get("target", "") if isinstance(argument, dict) else ""
        yield conditions, _VERDICTS.get(name, Verdict.CONTINUE), target


def _other() -> Condition:
    return Condition(kind=Kind.OTHER)
