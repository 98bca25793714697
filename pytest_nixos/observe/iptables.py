"""iptables rules, from ``iptables-save`` and ``ip6tables-save`` into filter rules."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pytest_nixos.nix.declared import PortRange
from pytest_nixos.observe.filtering import Chain, Condition, FilterRule, Kind, Verdict

__all__ = ["parse_iptables_save"]

_BASE = {"INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "PREROUTING": "prerouting"}
_TARGETS = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.REJECT,
    "RETURN": Verdict.RETURN,
}
# Targets of extensions that do not decide; a chain may not have these names.
_SILENT_TARGETS = frozenset(
    {"LOG", "NFLOG", "MARK", "CONNMARK", "TRACE", "CT", "AUDIT", "CHECKSUM", "TCPMSS", "SET"}
)
_PORT_OPTIONS = ("--dport", "--dports", "--destination-port", "--destination-ports")
_ICMP_OPTIONS = ("--icmp-type", "--icmpv6-type")
_STATE_OPTIONS = ("--ctstate", "--state")
# The kernel prints numbers for these.
_ICMP_TYPES = {"8": "echo-request", "128": "echo-request"}
_PROTOCOLS = {"ipv6-icmp": "icmpv6", "58": "icmpv6", "1": "icmp", "6": "tcp", "17": "udp"}


def parse_iptables_save(text: str, *, family: str) -> Mapping[str, Mapping[str, Chain]]:
    """Turn the output of ``iptables-save`` into chains by table (``ip filter``) and name.

    :param family: ``ip`` or ``ip6``.
    """
    policies: dict[tuple[str, str], Verdict | None] = {}
    rules: dict[tuple[str, str], list[FilterRule]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = f"{family} {line[1:].strip()}"
        elif line.startswith(":") and table:
            name, _, rest = line[1:].partition(" ")
            policies[table, name] = _TARGETS.get(rest.split(" ")[0])
        elif line.startswith("-A "):
            rule = _parse_rule(line, {name for t, name in policies if t == table})
            rules.setdefault((table, rule.chain), []).append(rule)
    tables: dict[str, dict[str, Chain]] = {}
    for (table, name), policy in policies.items():
        kind = table.split(" ")[1]
        tables.setdefault(table, {})[name] = Chain(
            table=table,
            name=name,
            rules=tuple(rules.get((table, name), ())),
            families=(family,),
            hook=_BASE.get(name, "") if policy is not None else "",
            policy=policy or Verdict.ACCEPT,
            # Tables see a packet in the order raw, mangle, nat, filter, security.
            priority={"raw": -300, "mangle": -150, "filter": 0, "security": 50}.get(kind, -100),
            kind="nat" if kind == "nat" else "filter",
        )
    return tables


def _parse_rule(line: str, chains: set[str]) -> FilterRule:
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()  # an odd quote
    conditions: list[Condition] = []
    verdict, target = Verdict.CONTINUE, ""
    negated = False
    at = 2
    while at < len(words):
        option, arguments = words[at], _arguments(words, at + 1)
        at += 1 + len(arguments)
        if option == "!":
            negated = True
            continue
        if option in ("-j", "-g", "--jump", "--goto"):
            # What follows belongs to the target.
            verdict, target = _verdict(option, arguments[0] if arguments else "", chains)
            break
        condition = _condition(option, arguments, negated=negated)
        conditions += [condition] if condition else []
        negated = False
    return FilterRule(
        chain=words[1] if len(words) > 1 else "",
        text=line,
        conditions=tuple(conditions),
        verdict=verdict,
        target=target,
    )


def _arguments(words: Sequence[str], start: int) -> Sequence[str]:
    end = start
    while end < len(words) and words[end] != "!" and not _is_option(words[end]):
        end += 1
    return words[start:end]


def _is_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not word[1:2].isdigit()


def _verdict(option: str, name: str, chains: set[str]) -> tuple[Verdict, str]:
    if name in chains:
        return (Verdict.GOTO if option in ("-g", "--goto") else Verdict.JUMP), name
    if name in _TARGETS:
        return _TARGETS[name], ""
    if name in _SILENT_TARGETS:
        return Verdict.CONTINUE, ""
    # NFQUEUE and the like hand the packet to something that may accept it.
    return (Verdict.ACCEPT if name == "NFQUEUE" else Verdict.CONTINUE), ""


def _condition(option: str, arguments: Sequence[str], *, negated: bool) -> Condition | None:
    value = arguments[0] if arguments else ""
    if option in ("-m", "--match", "--comment"):
        # A module alone says nothing, apart from those that need no option.
        bare = value in ("socket", "rpfilter", "bpf", "u32") and option != "--comment"
        return Condition(kind=Kind.OTHER) if bare else None
    if option in ("-i", "--in-interface"):
        pattern = f"{value[:-1]}*" if value.endswith("+") else value
        return Condition(kind=Kind.INTERFACE, values=(pattern,), negated=negated)
    if option in ("-p", "--protocol"):
        name = _PROTOCOLS.get(value, value)
        if name in ("all", "0"):
            return None
        return Condition(kind=Kind.PROTOCOL, values=(name,), negated=negated)
    if option in _PORT_OPTIONS:
        ranges = _ports(value)
        if ranges:
            return Condition(kind=Kind.PORT, ports=ranges, negated=negated)
    if option in _STATE_OPTIONS:
        states = tuple(state.lower() for state in value.split(","))
        return Condition(kind=Kind.STATE, values=states, negated=negated)
    if option in _ICMP_OPTIONS:
        name = _ICMP_TYPES.get(value, value)
        return Condition(kind=Kind.ICMP_TYPE, values=(name,), negated=negated)
    return Condition(kind=Kind.OTHER)


def _ports(text: str) -> tuple[PortRange, ...]:
    ranges = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        if not first.isdecimal() or (colon and not last.isdecimal()):
            return ()
        ranges.append(PortRange(first=int(first), last=int(last if colon else first)))
    return tuple(ranges)
