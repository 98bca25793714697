"""Walk classes of packets through the rules, as the kernel walks a packet.

A class is a box of dimensions. A rule cuts it into the part that it matches and the parts that it
does not, so the outcome is exact for every packet at once. Where a condition cannot be told, both
ways are followed and the condition is kept with the outcome as a doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pytest_nixos.observe.firewall.classes import (
    NO_RULE,
    Doubt,
    Outcome,
    Start,
    State,
    changed,
    compacted,
    cut_state,
    decides,
    doubted,
    masked,
    ranged,
    with_now,
)
from pytest_nixos.observe.firewall.model import (
    Action,
    Chain,
    Chance,
    Choose,
    Match,
    Nat,
    Reason,
    Rule,
    Step,
    Surroundings,
    Tables,
    Test,
    Verdict,
)
from pytest_nixos.observe.firewall.spans import Spans, only

__all__ = ["walk"]

_MAX_DEPTH = 32  # nftables allows 16 nested jumps
_MOST_CLASSES = 20_000
_MANY = 32
_MOST_STEPS = 1_000_000
_CONNTRACK, _DNAT = -200, -100
_TCP, _ICMP, _ICMPV6 = 6, 1, 58
INVALID, ESTABLISHED, RELATED, NEW, UNTRACKED = 1, 2, 4, 8, 64
_STATUS_DNAT = 1 << 5
# Which messages open a connection of their own; Linux, nf_conntrack_proto_icmp.c and
# nf_conntrack_proto_icmpv6.c.
_ICMP_NEW = only(8, 13, 15, 17)
_ICMPV6_NEW = only(128, 139)
_ICMPV6_UNTRACKED = ((130, 136), (143, 143))


@dataclass(slots=True, kw_only=True)
class _Way:
    """Where packets go from one rule.

    :param stack: the rules that led to its chain, outermost first.
    :param after: gets what goes on with the next rule.
    :param back: gets what leaves the chain.
    :param passed: gets what leaves the base chain, accepted.
    :param opens: whether the base chain is one that decides what gets in.
    """

    rule: Rule
    stack: tuple[Rule, ...]
    passed: list[State]
    back: list[State]
    opens: bool
    after: list[State] = field(default_factory=list)


class _TooManyError(Exception):
    """The ruleset cuts packets into more classes than can be followed."""


def walk(
    tables: Tables, surroundings: Surroundings, start: Start, *, only_before_routing: bool = False
) -> Sequence[Outcome]:
    """Tell what becomes of the packets of `start`: disjoint classes, but for those with doubts.

    :param tables: table (``inet nixos-fw``) to chains by name.
    :param surroundings: needed for packets that a rule sends elsewhere.
    """
    walker = _Walker(tables, surroundings, start)
    try:
        return walker.run(only_before_routing=only_before_routing)
    except _TooManyError:
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
        self._steps = 0
        self._opens = False

    def run(self, *, only_before_routing: bool) -> Sequence[Outcome]:
        now: dict[str, Spans | None] = {
            "ctstate": only(INVALID),
            "ctstatus": only(0),
            "mark": only(0),
            "ctmark": only(0),
        }
        first = State(box=self._start.box, now=now, local=self._start.to_host)
        states = self._hook("ingress", [first])
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
        self, state: State, rules: tuple[Rule, ...], policy: str = "", *, answered: bool = False
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

    def _prerouting(self, states: list[State]) -> list[State]:
        chains = self._base_chains("prerouting")
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
            after = self._base(chain, asked)
            done += [s for s in after if s.sent_on]
            waiting = [s for s in after if not s.sent_on]
        return self._through(late, [*waiting, *done])

    def _hook(self, hook: str, states: list[State]) -> list[State]:
        # Sources are changed here only, which decides nothing.
        chains = [c for c in self._base_chains(hook) if c.kind != "nat"]
        return self._through(chains, states)

    def _through(self, chains: Iterable[Chain], states: list[State]) -> list[State]:
        for chain in chains:
            states = self._base(chain, states)
        return states

    def _base_chains(self, hook: str) -> list[Chain]:
        found = [
            chain
            for chains in self._tables.values()
            for chain in chains.values()
            if chain.hook == hook
            and self._start.family in chain.families
            and self._stands_at(chain)
        ]
        # Of chains with one priority the kernel runs the one first that was registered last;
        # nf_hook_entries_grow().
        order = sorted(range(len(found)), key=lambda at: (found[at].priority, -at))
        return [found[at] for at in order]

    def _stands_at(self, chain: Chain) -> bool:
        if chain.hook != "ingress" or chain.devices is None:
            return True
        return self._start.interface in chain.devices

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

    def _route(self, states: list[State]) -> tuple[list[State], list[State]]:
        local: list[State] = []
        forwarded: list[State] = []
        if not self._start.to_host:
            return [], states
        for state in states:
            if state.local is True:
                local.append(state)
            elif state.local is False:
                self._forward(state, forwarded)
            else:
                known = replace(state, doubts=(*state.doubts, self._nowhere(state)))
                local.append(replace(known, local=True))
                forwarded.append(replace(known, local=False))
        return local, forwarded

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

    # Chains and rules.

    def _base(self, chain: Chain, states: list[State]) -> list[State]:
        """Walk a base chain; return what goes on to the next."""
        if chain.devices is None:
            rule = Rule(table=chain.table, chain=chain.name, text=f"chain {chain.name}", steps=())
            doubt = Doubt(Reason.UNKNOWN, "on which interfaces the chain stands", rule)
            aside = [replace(s, doubts=(*s.doubts, doubt)) for s in states]
            states = [replace(s, doubts=(*s.doubts, doubt)) for s in states]
        else:
            aside = []
        passed: list[State] = []
        self._opens = chain.hook in ("input", "forward")
        for state in self._chain(chain, states, (), passed):
            if chain.policy is Verdict.ACCEPT:
                passed.append(state)
            else:
                policy = f"policy {chain.policy.value} of {chain.table} {chain.name}"
                self._refuse(state, (), policy)
        return passed + aside

    def _chain(
        self,
        chain: Chain,
        states: list[State],
        stack: tuple[Rule, ...],
        passed: list[State],
    ) -> list[State]:
        """Walk one chain; return what comes back out of it undecided.

        :param stack: the rules that led here, outermost first.
        :param passed: gets what leaves the base chain, accepted.
        """
        back: list[State] = []
        most = _MANY
        for rule in chain.rules:
            if not states:
                break
            way = _Way(rule=rule, stack=stack, passed=passed, back=back, opens=self._opens)
            for state in states:
                self._steps += 1
                if self._steps > _MOST_STEPS or len(way.after) > _MOST_CLASSES:
                    raise _TooManyError
                self._follow(way, rule.steps, [state])
            states = way.after
            if len(states) > most:
                states = compacted(states)
                most = max(_MANY, 2 * len(states))
        return states + back

    def _follow(self, way: _Way, steps: Sequence[Step], states: list[State]) -> None:
        """Take classes of packets through the steps of a rule."""
        for at, step in enumerate(steps):
            if isinstance(step, Match):
                states = self._filter(step, states, way)
            elif isinstance(step, Chance):
                if decides(steps[at + 1 :]):
                    states = self._chance(step, states, way)
            elif isinstance(step, Choose):
                self._choose(step, steps[at + 1 :], states, way)
                return
            elif isinstance(step, Action):
                for state in states:
                    self._act(step, state, way)
                return
            elif isinstance(step, Nat):
                rules = (*way.stack, way.rule)
                sent = (self._sent(state, step) for state in states)
                way.passed += [replace(s, path=(*s.path, *rules)) for s in sent]
                return
            else:
                states = [changed(state, step) for state in states]
            if not states:
                return
        way.after += states

    def _filter(self, step: Match, states: list[State], way: _Way) -> list[State]:
        passing: list[State] = []
        for state in states:
            yes, no = self._match(step, state, way.rule)
            passing += yes
            way.after += no
        return passing

    def _chance(self, step: Chance, states: list[State], way: _Way) -> list[State]:
        """Go both ways; return what goes on as if the condition held."""
        passing: list[State] = []
        for state in states:
            yes, no = doubted(state, step.reason, step.about, way.rule)
            passing += yes
            if step.otherwise is Verdict.CONTINUE:
                way.after += no
            else:
                for one in no:
                    self._refuse(one, (*one.path, *way.stack, way.rule))
        return passing

    def _choose(self, step: Choose, rest: Sequence[Step], states: list[State], way: _Way) -> None:
        for branch in step.branches:
            left: list[State] = []
            for state in states:
                yes, no = self._conjunction(branch.tests, state, way.rule)
                left += no
                if yes:
                    self._follow(way, (*branch.steps, *rest), yes)
            states = left
        way.after += states

    def _act(self, action: Action, state: State, way: _Way) -> None:
        rules = (*way.stack, way.rule)
        match action.verdict:
            case Verdict.ACCEPT:
                # What only lets a packet pass on its way there opens nothing.
                path = (*state.path, *rules) if way.opens else state.path
                way.passed.append(replace(state, path=path))
            case Verdict.DROP | Verdict.REJECT:
                answered = action.verdict is Verdict.REJECT
                self._refuse(state, (*state.path, *rules), answered=answered)
            case Verdict.RETURN:
                way.back.append(state)
            case Verdict.CONTINUE:
                way.after.append(state)
            case Verdict.JUMP | Verdict.GOTO:
                target = self._tables.get(way.rule.table, {}).get(action.target)
                out = [state]
                if target is not None and len(way.stack) < _MAX_DEPTH:
                    out = self._chain(target, [state], rules, way.passed)
                (way.after if action.verdict is Verdict.JUMP else way.back).extend(out)

    def _match(self, step: Match, state: State, rule: Rule) -> tuple[list[State], list[State]]:
        matched: list[State] = []
        rest = [state]
        for tests in step.alternatives:
            left: list[State] = []
            for one in rest:
                yes, no = self._conjunction(tests, one, rule)
                matched += yes
                left += no
            rest = left
            if not rest:
                break
        return (rest, matched) if step.negated else (matched, rest)

    def _conjunction(
        self, tests: Sequence[Test], state: State, rule: Rule
    ) -> tuple[list[State], list[State]]:
        inside, outside = [state], []
        for test in tests:
            following = []
            for one in inside:
                yes, no = self._test(test, one, rule)
                following += yes
                outside += no
            inside = following
            if not inside:
                break
        return inside, outside

    def _test(self, test: Test, state: State, rule: Rule) -> tuple[list[State], list[State]]:
        yes: list[State]
        no: list[State]
        if test.dimension in ("iif", "oif"):
            yes, no = self._named(test, state, rule)
        elif test.dimension == "local":
            yes, no = self._destined(state, rule)
        elif test.dimension == "honest":
            yes, no = ([state], []) if self._start.honest else ([], [state])
        elif test.mask is not None:
            yes, no = masked(test, state, rule)
        else:
            yes, no = ranged(test, state, rule)
        return (no, yes) if test.negated else (yes, no)

    def _named(self, test: Test, state: State, rule: Rule) -> tuple[list[State], list[State]]:
        name = self._start.interface if test.dimension == "iif" else state.oif
        if name is None:
            if state.local is not False:
                return [], [state]  # no packet leaves before it is routed
            return doubted(state, Reason.UNKNOWN, "by which interface it leaves", rule)
        found = any(name.startswith(n[:-1]) if n.endswith("*") else name == n for n in test.names)
        return ([state], []) if found else ([], [state])

    def _destined(self, state: State, rule: Rule) -> tuple[list[State], list[State]]:
        """Judge "the destination is an address of ours", with ``fib`` or ``addrtype``."""
        if state.local is None:
            return doubted(state, Reason.UNKNOWN, "whether the guest has the address", rule)
        return ([state], []) if state.local else ([], [state])

    def _sent(self, state: State, nat: Nat) -> State:
        now = dict(state.now)
        local, oif = state.local, state.oif
        if nat.port is not None:
            now["dport"] = nat.port
        if nat.is_redirect:
            now["daddr"] = self._own_addresses()
            local = True
        elif nat.address is not None:
            now["daddr"] = nat.address or None
            local, oif = self._destination(nat.address)
        changed = nat.port is not None or nat.address is not None or nat.is_redirect
        if changed:
            now["ctstatus"] = only(_STATUS_DNAT)
        return replace(state, now=now, local=local, oif=oif, sent_on=True)

    def _own_addresses(self) -> Spans | None:
        found = [
            number
            for interface in self._surroundings.interfaces
            if interface.name == self._start.interface
            for family, number in interface.addresses
            if family == self._start.family
        ]
        return only(*found) if found else None

    def _destination(self, addresses: Spans) -> tuple[bool | None, str | None]:
        if not self._surroundings.is_known or len(addresses) != 1:
            return None, None
        family = self._start.family
        first, last = addresses[0]
        if first != last and last - first > 256:
            return None, None
        own = {self._surroundings.is_own(family, a) for a in range(first, last + 1)}
        if own == {True}:
            return True, None
        ways = {self._surroundings.way_to(family, a) for a in range(first, last + 1)}
        return (False, ways.pop()) if own == {False} and len(ways) == 1 else (None, None)
