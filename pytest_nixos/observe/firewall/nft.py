"""nftables rulesets, from ``nft -j list ruleset`` (libnftables-json(5)) into chains of the one
language.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.observe.firewall.model import BRIDGE, Chain, Rule, Tables, Verdict, gathered
from pytest_nixos.observe.firewall.nft_rules import LIMITS, VERDICTS, RuleReader
from pytest_nixos.observe.firewall.nft_values import Sets

__all__ = ["parse_nft", "parse_nft_text"]

Json = Any

_FAMILIES = {
    "inet": (4, 6),
    "ip": (4,),
    "ip6": (6,),
    "netdev": (4, 6),
    "bridge": (BRIDGE,),
}
_HANDLE = re.compile(r"^(.*?)\s*# handle (\d+)$")
_COUNTER = re.compile(r"counter packets \d+ bytes \d+ ?")
_TABLE_LINE = re.compile(r"^table (\w+) (\S+) \{")
_CHAIN_LINE = re.compile(r"^chain (\S+) \{")
_DEVICES = re.compile(r"hook ingress devices? (?:= )?(?:\{([^}]*)\}|\"?([^\s\"]+)\"?)")


def parse_nft(document: Json, text: str = "") -> Tables:
    """Turn a ruleset into chains by table (``inet nixos-fw``) and name.

    :param document: what ``nft -j list ruleset`` printed, decoded.
    :param text: what ``nft -a list ruleset`` printed: the rules' own wording, found by their
        handles.
    :raises KeyError: or another LookupError, TypeError, ValueError or AttributeError: if it is no
        such document.
    """
    entries = [entry for entry in document["nftables"] if isinstance(entry, dict)]
    texts, devices = parse_nft_text(text), _devices(text)
    tables_told = [entry["table"] for entry in entries if "table" in entry]
    sleeping = _dormant(text) if text else _dormant_by_json(tables_told)
    sets = _sets(entries)
    rules: dict[tuple[str, str], list[Rule]] = {}
    for rule in (entry["rule"] for entry in entries if "rule" in entry):
        table = f"{rule.get('family')} {rule.get('table')}"
        chain = rule.get("chain", "")
        wording = texts.get((table, rule.get("handle", -1)), json.dumps(rule.get("expr", [])))
        reader = RuleReader(sets.get(table, Sets()), wording)
        steps = gathered(tuple(reader.steps(rule.get("expr", []))))
        found = Rule(table=table, chain=chain, text=wording, steps=steps)
        rules.setdefault((table, chain), []).append(found)
    tables: dict[str, dict[str, Chain]] = {}
    for chain in (entry["chain"] for entry in entries if "chain" in entry):
        family, name = chain.get("family", ""), chain.get("name", "")
        table = f"{family} {chain.get('table')}"
        hook = "" if table in sleeping else chain.get("hook", "")
        tables.setdefault(table, {})[name] = Chain(
            table=table,
            name=name,
            rules=tuple(rules.get((table, name), ())),
            families=_FAMILIES.get(family, ()),
            hook=hook,
            policy=VERDICTS.get(chain.get("policy", "accept"), Verdict.ACCEPT),
            priority=chain["prio"] if isinstance(chain.get("prio"), int) else 0,
            kind=chain.get("type", ""),
            devices=_chain_devices(chain, devices.get((table, name))) if hook == "ingress" else (),
        )
    return tables


def parse_nft_text(text: str) -> Mapping[tuple[str, int], str]:
    """Read ``nft -a list ruleset``: (table, handle) to the rule's wording on one line."""
    found: dict[tuple[str, int], str] = {}
    table, pending = "", ""
    for raw in text.split("\n"):
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


def _dormant_by_json(tables: Sequence[Mapping[str, Json]]) -> set[str]:
    found = set()
    for table in tables:
        flags = table.get("flags") or ()
        if "dormant" in ([flags] if isinstance(flags, str) else flags):
            found.add(f"{table['family']} {table['name']}")
    return found


def _dormant(text: str) -> set[str]:
    """Read which tables are dormant: nft's JSON has the table's name in the place of the flag, in
    1.0.6 at least.
    """
    found, table = set(), ""
    for raw in text.split("\n"):
        line = raw.strip()
        if match := _TABLE_LINE.match(line):
            table = f"{match[1]} {match[2]}"
        elif table and line.startswith("flags ") and "dormant" in re.split(r"[\s,;]+", line):
            found.add(table)
    return found


def _devices(text: str) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Read the devices of ingress chains, which nft's JSON leaves out before 1.0.9."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    table = chain = ""
    for raw in text.split("\n"):
        line = raw.strip()
        if match := _TABLE_LINE.match(line):
            table = f"{match[1]} {match[2]}"
        elif match := _CHAIN_LINE.match(line):
            chain = match[1]
        elif line.startswith("type ") and (match := _DEVICES.search(line)):
            names = (match[1] or match[2]).split(",")
            found[table, chain] = tuple(name.strip().strip('"') for name in names)
    return found


def _chain_devices(
    chain: Mapping[str, Json], told: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    given = chain.get("dev")
    if given is None:
        return told
    return tuple(given) if isinstance(given, list) else (str(given),)


def _sets(entries: Sequence[Mapping[str, Json]]) -> Mapping[str, Sets]:
    contents: dict[str, dict[str, Sequence[Json]]] = {}
    filled: dict[str, set[str]] = {}
    limited: dict[str, set[str]] = {}
    for entry in entries:
        found = entry.get("set") or entry.get("map") or {}
        if {"family", "table", "name"} <= found.keys():
            table = contents.setdefault(f"{found['family']} {found['table']}", {})
            table[found["name"]] = found.get("elem", [])
            if _limits(found):
                owner = f"{found['family']} {found['table']}"
                limited.setdefault(owner, set()).add(found["name"])
        rule = entry.get("rule") or {}
        for statement in rule.get("expr", ()):
            if not isinstance(statement, dict):
                continue
            for body in (statement.get("set"), statement.get("map")):
                if isinstance(body, dict):
                    name = str(body.get("set") or body.get("map") or "").removeprefix("@")
                    filled.setdefault(f"{rule['family']} {rule['table']}", set()).add(name)
    return {
        table: Sets(
            contents=contents.get(table, {}),
            filled=frozenset(filled.get(table, ())),
            limited=frozenset(limited.get(table, ())),
        )
        for table in {*contents, *filled}
    }


def _limits(found: Mapping[str, Json]) -> bool:
    """Whether a set's elements match up to a rate only: a statement of the set, or of one of its
    elements.
    """
    elements = [e.get("elem") for e in found.get("elem", ()) if isinstance(e, dict)]
    told = [found, *(e for e in elements if isinstance(e, dict))]
    statements = [s for one in told for s in one.get("stmt", ()) if isinstance(s, dict)]
    return any(LIMITS & s.keys() for s in (*statements, *told[1:]))
