"""Packet filter rules in one shape for nftables and iptables, and what they let in.

The rules are walked for one packet at a time, as the kernel does, so order, jumps, returns, several base chains and
overlapping ranges come out right. A condition that cannot be judged for a stranger's first packet (its
source address, a rate limit, ...) makes the answer conditional instead of wrong.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_nixos.nix.declared import PortRange

__all__ = [
    "Chain",
    "Condition",
    "Decision",
    "FilterRule",
    "Judgement",
    "Kind",
    "Packet",
    "Verdict",
    "accept_paths",
    "judge",
    "open_ports",
]

_MAX_DEPTH = 32  # nftables allows 16 nested jumps
_LAST_PORT = 65535


class Kind(enum.Enum):
    """What a condition looks at."""

    FAMILY = "family"
    INTERFACE = "interface"
    PROTOCOL = "protocol"
    PORT = "port"
    STATE = "state"
    ICMP_TYPE = "icmp-type"
    OTHER = "other"


class Verdict(enum.Enum):
    """What a rule does with a packet that it matches."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    CONTINUE = "continue"


class Decision(enum.Enum):
    """What becomes of a stranger's first packet."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CONDITIONAL = "conditional"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a new connection.

    :param family: ``ip`` or ``ip6``.
    :param protocol: ``tcp`` or ``udp``.
    :param port: destination port.
    """

    family: str
    interface: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of a rule.

    :param values: names that match (families, interfaces, protocols, states, ICMP types); an interface may end
        in ``*``.
    :param ports: ranges that match, for :attr:`Kind.PORT`.
    """

    kind: Kind
    values: tuple[str, ...] = ()
    ports: tuple[PortRange, ...] = ()
    negated: bool = False

    def matches(self, packet: Packet) -> bool | None:
        """Whether `packet` fulfils it; ``None`` if that depends on what a packet does not say."""
        match self.kind:
            case Kind.FAMILY:
                found = packet.family in self.values
            case Kind.INTERFACE:
                found = any(_is_interface(pattern, packet.interface) for pattern in self.values)
            case Kind.PROTOCOL:
                found = packet.protocol in self.values
            case Kind.PORT:
                found = any(packet.port in r for r in self.ports)
            case Kind.STATE:
                found = "new" in self.values
            case Kind.ICMP_TYPE:
                found = False
            case Kind.OTHER:
                return None
        return found != self.negated


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterRule:
    """One rule.

    :param text: as the guest's own tool prints it.
    :param target: chain to jump or go to.
    """

    chain: str
    text: str
    conditions: tuple[Condition, ...]
    verdict: Verdict
    target: str = ""

    def matches(self, packet: Packet) -> bool | None:
        """Whether the whole rule applies to `packet`; ``None`` if it depends."""
        answers = [condition.matches(packet) for condition in self.conditions]
        if False in answers:
            return False
        return None if None in answers else True


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One chain with its rules.

    :param table: ``inet nixos-fw``, or ``ip filter``.
    :param families: families whose packets it sees.
    :param hook: ``input``, ``prerouting``, ...; ``""`` for a chain that is only jumped to.
    :param policy: what becomes of packets that no rule decides, for base chains.
    :param kind: ``filter``, ``nat`` or ``route``, for base chains.
    """

    table: str
    name: str
    rules: tuple[FilterRule, ...]
    families: tuple[str, ...]
    hook: str = ""
    policy: Verdict = Verdict.ACCEPT
    priority: int = 0
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The decision on one packet and the rules that made it, outermost first."""

    decision: Decision
    rules: tuple[FilterRule, ...] = ()


@dataclass(slots=True)
class _Walk:
    chains: Mapping[str, Chain]
    packet: Packet
    conditional: list[FilterRule] = field(default_factory=list)

    def chain(self, name: str, depth: int) -> tuple[Verdict | None, tuple[FilterRule, ...]]:
        """Walk one chain; ``None`` if the packet comes back out of it undecided."""
        chain = self.chains.get(name)
        if chain is None or depth > _MAX_DEPTH:
            return None, ()
        for rule in chain.rules:
            applies = rule.matches(self.packet)
            if applies is False:
                continue
            if applies is None:
                self._note_conditional(rule, depth)
                continue
            if rule.verdict is Verdict.RETURN:
                return None, ()
            verdict, path = self._follow(rule, depth)
            if verdict is not None or rule.verdict is Verdict.GOTO:
                return verdict, (rule, *path)
        return None, ()

    def _follow(
        self, rule: FilterRule, depth: int
    ) -> tuple[Verdict | None, tuple[FilterRule, ...]]:
        if rule.verdict in (Verdict.JUMP, Verdict.GOTO):
            return self.chain(rule.target, depth + 1)
        if rule.verdict in (Verdict.ACCEPT, Verdict.DROP, Verdict.REJECT):
            return rule.verdict, ()
        return None, ()

    def _note_conditional(self, rule: FilterRule, depth: int) -> None:
        before = len(self.conditional)
        verdict, _ = self._follow(rule, depth)
        if verdict is Verdict.ACCEPT or len(self.conditional) > before:
            self.conditional[before:] = [rule]


def judge(tables: Mapping[str, Mapping[str, Chain]], packet: Packet) -> Judgement:
    """Tell what the input hook does with `packet`: every base chain has to accept it.

    :param tables: table to chains by name.
    """
    conditional: list[FilterRule] = []
    accepted: tuple[FilterRule, ...] = ()
    for base in _input_chains(tables, packet.family):
        walk = _Walk(chains=tables[base.table], packet=packet)
        verdict, path = walk.chain(base.name, 0)
        if (verdict or base.policy) is Verdict.ACCEPT:
            accepted = path or accepted
        elif walk.conditional:
            conditional += walk.conditional
        else:
            return Judgement(decision=Decision.REFUSED, rules=path)
    if conditional:
        return Judgement(decision=Decision.CONDITIONAL, rules=tuple(conditional))
    return Judgement(decision=Decision.ACCEPTED, rules=accepted)


def open_ports(
    tables: Mapping[str, Mapping[str, Chain]], *, protocol: str, interface: str, family: str
) -> Sequence[PortRange]:
    """Return all ports on which a stranger's first packet is accepted without conditions.

    Rules only change their answer at the ends of ranges, so one port of each span between them is asked.
    """
    starts = sorted({0, *_boundaries(tables)})
    spans: list[PortRange] = []
    for first, after in zip(starts, [*starts[1:], _LAST_PORT + 1], strict=True):
        packet = Packet(family=family, interface=interface, protocol=protocol, port=first)
        if judge(tables, packet).decision is not Decision.ACCEPTED:
            continue
        if spans and spans[-1].last == first - 1:
            spans[-1] = PortRange(first=spans[-1].first, last=after - 1)
        else:
            spans.append(PortRange(first=first, last=after - 1))
    return spans


def accept_paths(
    tables: Mapping[str, Mapping[str, Chain]],
) -> Iterator[tuple[tuple[FilterRule, ...], tuple[Condition, ...]]]:
    """Yield every way through the input hook that ends in "accept": its rules, and all their conditions.

    Rules behind an unconditional end of their chain are not reached.
    """
    for family in ("ip", "ip6"):
        for base in _input_chains(tables, family):
            if family == "ip6" and "ip" in base.families:
                continue  # seen already
            yield from _accepts(tables[base.table], base.name, (), 0)


def _accepts(
    chains: Mapping[str, Chain], name: str, before: tuple[FilterRule, ...], depth: int
) -> Iterator[tuple[tuple[FilterRule, ...], tuple[Condition, ...]]]:
    chain = chains.get(name)
    if chain is None or depth > _MAX_DEPTH:
        return
    for rule in chain.rules:
        path = (*before, rule)
        if rule.verdict is Verdict.ACCEPT:
            yield path, tuple(c for r in path for c in r.conditions)
        elif rule.verdict in (Verdict.JUMP, Verdict.GOTO):
            yield from _accepts(chains, rule.target, path, depth + 1)
        ends = rule.verdict not in (Verdict.CONTINUE, Verdict.JUMP)
        if ends and not rule.conditions:
            return


def _input_chains(tables: Mapping[str, Mapping[str, Chain]], family: str) -> Sequence[Chain]:
    found = [
        chain
        for chains in tables.values()
        for chain in chains.values()
        if chain.hook == "input" and chain.kind == "filter" and family in chain.families
    ]
    return sorted(found, key=lambda chain: chain.priority)


def _boundaries(tables: Mapping[str, Mapping[str, Chain]]) -> Iterator[int]:
    for chains in tables.values():
        for chain in chains.values():
            for rule in chain.rules:
                for condition in rule.conditions:
                    for span in condition.ports:
                        yield span.first
                        if span.last < _LAST_PORT:
                            yield span.last + 1


def _is_interface(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
