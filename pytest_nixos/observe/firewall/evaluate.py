"""What becomes of packets: the hooks that they come by, in the kernel's order, and routing between.

A class is a box of dimensions. A rule cuts it into the part that it matches and the parts that it
does not, so the outcome is exact for every packet at once. Where a condition cannot be told, both
ways are followed and the condition is kept with the outcome as a doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pytest_nixos.observe.firewall.cast import Cast
from pytest_nixos.observe.firewall.chain_walk import ChainWalk, TooManyError
from pytest_nixos.observe.firewall.classes import (
    NO_RULE,
    Doubt,
    Outcome,
    Start,
    State,
    cut_state,
    doubted,
    with_now,
)
from pytest_nixos.observe.firewall.model import BRIDGE, Chain, Chance, Match, Reason, Rule, Tables
from pytest_nixos.observe.firewall.routing import Fate, Lookup, Policy, Surroundings
from pytest_nixos.observe.firewall.spans import Spans, only

__all__ = ["ANY_PORT", "walk"]

#: A bridge's port that no rule names.
ANY_PORT = "stranger0"
_CONNTRACK, _DNAT = -200, -100
_ICMP, _ICMPV6 = 1, 58
INVALID, ESTABLISHED, RELATED, NEW, UNTRACKED = 1, 2, 4, 8, 64
# Which messages open a connection of their own; Linux, nf_conntrack_proto_icmp.c and
# nf_conntrack_proto_icmpv6.c.
_ICMP_NEW = only(8, 13, 15, 17)
_ICMPV6_NEW = only(128, 139)
_ICMPV6_UNTRACKED = ((130, 136), (143, 143))
_BRIDGE_HOOKS = ("prerouting", "input")


def walk(
    tables: Tables, surroundings: Surroundings, start: Start, *, only_before_routing: bool = False
) -> Sequence[Outcome]:
    """Tell what becomes of the packets of `start`: disjoint classes, but for those with doubts.

    :param tables: table (``inet nixos-fw``) to chains by name.
    :param surroundings: needed for packets that a rule sends elsewhere, and for bridges.
    """
    walker = _Walker(tables, surroundings, start)
    try:
        return walker.run(only_before_routing=only_before_routing)
    except TooManyError:
        rule = Rule(table="", chain="", text="the ruleset as a whole", steps=())
        doubt = Doubt(Reason.UNKNOWN, "the rules cut packets into too many classes", rule)
        return [
            Outcome(box=start.box, accepted=accepted, rules=(), doubts=(doubt,))
            for accepted in (True, False)
        ]


class _Walker:
    def __init__(self, tables: Tables, surroundings: Surroundings, start: Start) -> None:
        self._tables = tables
        self._surroundings = surroundings
        self._start = start
        self._outcomes: list[Outcome] = []
        self._walk = ChainWalk(tables, surroundings, start, self._refuse)

    def run(self, *, only_before_routing: bool) -> Sequence[Outcome]:
        states = self._link()
        states = self._prerouting(states)
        if only_before_routing:
            for state in states:
                self._arrive(state)
            return self._outcomes
        local, forwarded = self._route(states)
        for state in self._hook("input", local):
            self._arrive(state)
        passed = self._hook("forward", forwarded)
        for state in self._hook("postrouting", passed):
            self._arrive(state)
        return self._outcomes

    def _arrive(self, state: State) -> None:
        self._outcomes.append(
            Outcome(
                box=state.box,
                accepted=True,
                rules=state.path,
                doubts=state.doubts,
                address=state.now.get("daddr") if state.sent_on else None,
                port=state.now.get("dport") if state.sent_on else None,
                forwarded=state.local is False,
            )
        )

    def _refuse(
        self,
        state: State,
        rules: tuple[Rule, ...],
        policy: str = "",
        answered: bool = False,
    ) -> None:
        self._outcomes.append(
            Outcome(
                box=state.box,
                accepted=False,
                rules=rules,
                doubts=state.doubts,
                policy=policy,
                answered=answered,
            )
        )

    # The hooks, in the kernel's order.

    def _link(self) -> list[State]:
        """Take packets through what stands below IP: ingress chains, and the bridges on the way."""
        way = self._surroundings.way_in(self._start.interface)
        start = self._start
        states = [State(box=start.box, now={}, local=start.to_host, cast=start.cast)]
        if way[0].device_kind == "bridge":
            # Whoever stands before a bridge comes by one of its ports.
            states = self._bridge(ANY_PORT, states)
        for interface in way:
            states = [replace(state, iif=interface.name) for state in states]
            states = self._ingress(interface.name, states)
            if interface.master_kind == "bridge":
                states = self._bridge(interface.name, states)
        fresh: dict[str, Spans | None] = {
            "ctstate": only(INVALID),
            "ctstatus": only(0),
            "ctmark": only(0),
        }
        return [
            replace(with_now(s, **fresh, mark=s.now.get("mark", only(0))), iif=way[-1].name)
            for s in states
        ]

    def _ingress(self, interface: str, states: list[State]) -> list[State]:
        chains = [
            c for c in self._base_chains("ingress", self._start.family) if _is_on(c, interface)
        ]
        before: dict[str, Spans | None] = {
            "ctstate": only(INVALID),
            "ctstatus": only(0),
            "ctmark": only(0),
        }
        states = [with_now(s, **before, mark=s.now.get("mark", only(0))) for s in states]
        return self._through(chains, states)

    def _bridge(self, port: str, states: list[State]) -> list[State]:
        """Take frames through the bridge whose port they come by, to the guest itself."""
        # Whether the bridge tracks connections hangs on a module.
        unknown: dict[str, Spans | None] = {"ctstate": None, "ctstatus": None, "ctmark": None}
        found = [replace(with_now(state, **unknown), iif=port) for state in states]
        found = [with_now(s, mark=s.now.get("mark", only(0))) for s in found]
        for hook in _BRIDGE_HOOKS:
            found = self._through(self._base_chains(hook, BRIDGE), found)
        return found

    def _prerouting(self, states: list[State]) -> list[State]:
        chains = self._base_chains("prerouting", self._start.family)
        early = [c for c in chains if c.priority < _CONNTRACK and c.kind != "nat"]
        middle = [c for c in chains if _CONNTRACK <= c.priority < _DNAT and c.kind != "nat"]
        late = [c for c in chains if c.priority >= _DNAT and c.kind != "nat"]
        states = self._through(early, states)
        states = [tracked for state in states for tracked in self._track(state)]
        states = self._through(middle, states)
        # The kernel runs every nat chain at one place, in the order of their priorities.
        waiting, done = states, []
        for chain in (c for c in chains if c.kind == "nat"):
            asked = [s for s in waiting if s.tracked and s.value("ctstate") == only(NEW)]
            done += [s for s in waiting if not (s.tracked and s.value("ctstate") == only(NEW))]
            after = self._walk.base(chain, asked)
            done += [s for s in after if s.sent_on]
            waiting = [s for s in after if not s.sent_on]
        return self._through(late, [*waiting, *done])

    def _hook(self, hook: str, states: list[State]) -> list[State]:
        # Sources are changed here only, which decides nothing.
        chains = [c for c in self._base_chains(hook, self._start.family) if c.kind != "nat"]
        return self._through(chains, states)

    def _through(self, chains: Iterable[Chain], states: list[State]) -> list[State]:
        for chain in chains:
            states = self._walk.base(chain, states)
        return states

    def _base_chains(self, hook: str, family: int) -> list[Chain]:
        found = [
            chain
            for chains in self._tables.values()
            for chain in chains.values()
            if chain.hook == hook and family in chain.families
        ]
        # Of chains with one priority the kernel runs the one first that was registered last;
        # nf_hook_entries_grow().
        order = sorted(range(len(found)), key=lambda at: (found[at].priority, -at))
        return [found[at] for at in order]

    def _track(self, state: State) -> Iterator[State]:
        if not state.tracked:
            yield with_now(state, ctstate=only(UNTRACKED))
            return
        if self._start.family == 4:
            kinds = [("icmp.type", _ICMP_NEW, NEW)]
            protocol = _ICMP
        else:
            kinds = [
                ("icmpv6.type", _ICMPV6_NEW, NEW),
                ("icmpv6.type", _ICMPV6_UNTRACKED, UNTRACKED),
            ]
            protocol = _ICMPV6
        rest, others = cut_state(state, "protocol", only(protocol))
        if others:
            yield with_now(others, ctstate=only(NEW))
        for dimension, values, found in kinds:
            if rest is None:
                break
            yes, rest = cut_state(rest, dimension, values)
            if yes:
                yield replace(with_now(yes, ctstate=only(found)), tracked=found == NEW)
        if rest:
            yield with_now(rest, ctstate=only(INVALID))

    # Routing.

    def _route(self, states: list[State]) -> tuple[list[State], list[State]]:
        local: list[State] = []
        forwarded: list[State] = []
        if not self._start.to_host:
            return [], states
        for state in states:
            for routed in self._routed(state):
                if routed.local is True:
                    local.append(routed)
                elif routed.local is False:
                    self._forward(routed, forwarded)
                else:
                    known = replace(routed, doubts=(*routed.doubts, self._nowhere(routed)))
                    local.append(replace(known, local=True))
                    forwarded.append(replace(known, local=False))
        return local, forwarded

    def _routed(self, state: State) -> Iterator[State]:
        """Ask the routing tables, in the order that the rules of routing say."""
        addresses = self._addresses(state)
        if addresses is None:
            yield state
            return
        waiting = [state]
        for policy in self._surroundings.policy(self._start.family):
            left: list[State] = []
            for one in waiting:
                fits, others = self._fit(policy, one)
                left += others
                for fitting in fits:
                    found = self._look_up(policy, addresses)
                    if found.fate is Fate.NO_ROUTE:
                        left.append(fitting)
                    else:
                        yield from self._sent_by(policy, fitting, found)
            waiting = left
        for one in waiting:
            yield replace(one, local=False, oif=None)

    def _addresses(self, state: State) -> Spans | None:
        """Return the addresses that a class is sent to, ``None`` if routing decides nothing."""
        if not self._surroundings.is_known or state.local is None or state.cast is not Cast.UNICAST:
            return None
        if "daddr" in state.now:
            return state.now["daddr"] or None
        family = self._start.family
        if self._surroundings.has_plain_policy(family):
            return None  # the table of own addresses is asked first
        return only(*self._surroundings.own_addresses(family)) or None

    def _look_up(self, policy: Policy, addresses: Spans) -> Lookup:
        if not policy.table:
            return Lookup(policy.fate)
        return self._surroundings.look_up(self._start.family, policy.table, addresses)

    def _fit(self, policy: Policy, state: State) -> tuple[list[State], list[State]]:
        inside, outside = [state], []
        for step in policy.rule.steps:
            following: list[State] = []
            for one in inside:
                if isinstance(step, Match):
                    yes, no = self._walk.matcher.match(step, one, policy.rule)
                else:
                    assert isinstance(step, Chance)
                    yes, no = doubted(one, step.reason, step.about, policy.rule)
                following += yes
                outside += no
            inside = following
        return inside, outside

    def _sent_by(self, policy: Policy, state: State, found: Lookup) -> Iterator[State]:
        match found.fate:
            case Fate.LOCAL:
                yield replace(state, local=True, oif=None)
            case Fate.AWAY:
                yield replace(state, local=False, oif=found.interface)
            case Fate.REFUSED:
                self._refuse(state, (*state.path, policy.rule))
            case _:
                about = "where it is routed"
                doubt = Doubt(Reason.UNKNOWN, about, policy.rule)
                known = replace(state, doubts=(*state.doubts, doubt))
                yield replace(known, local=True, oif=None)
                yield replace(known, local=False, oif="")
                self._refuse(known, (*state.path, policy.rule))

    def _forward(self, state: State, forwarded: list[State]) -> None:
        if not self._surroundings.is_known:
            doubt = self._nowhere(state)
            forwarded.append(replace(state, doubts=(*state.doubts, doubt)))
        elif self._start.family not in self._surroundings.forwards:
            self._refuse(state, state.path, "packets are not forwarded")
        elif state.oif is None:
            self._refuse(state, state.path, "there is no route")
        else:
            forwarded.append(state)

    def _nowhere(self, state: State) -> Doubt:
        about = "whether the guest has the address, or a route to it"
        return Doubt(Reason.UNKNOWN, about, state.path[-1] if state.path else NO_RULE)


def _is_on(chain: Chain, interface: str) -> bool:
    return chain.devices is None or interface in chain.devices
