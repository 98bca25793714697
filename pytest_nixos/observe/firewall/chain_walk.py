"""Walk classes of packets through chains of rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from pytest_nixos.observe.firewall.cast import Cast
from pytest_nixos.observe.firewall.classes import (
    Doubt,
    Start,
    State,
    changed,
    compacted,
    decides,
    doubted,
)
from pytest_nixos.observe.firewall.matching import Matcher
from pytest_nixos.observe.firewall.model import (
    BRIDGE,
    Action,
    Chain,
    Chance,
    Choose,
    Match,
    Nat,
    Reason,
    Rule,
    Step,
    Tables,
    Verdict,
)
from pytest_nixos.observe.firewall.routing import LOCAL_TABLE, Fate, Surroundings
from pytest_nixos.observe.firewall.spans import Spans, only

__all__ = ["ChainWalk", "Refuse", "TooManyError"]

_MAX_DEPTH = 32  # nftables allows 16 nested jumps
_MOST_CLASSES = 20_000
_MANY = 32
_MOST_STEPS = 1_000_000
_STATUS_DNAT = 1 << 5

#: Takes what is refused: the class, the rules that decide, else the policy, and whether the sender
#: is told.
Refuse = Callable[[State, tuple[Rule, ...], str, bool], None]


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


class TooManyError(Exception):
    """The ruleset cuts packets into more classes than can be followed."""


class ChainWalk:
    """Takes classes of packets through base chains.

    :param refuse: gets what is refused on the way.
    """

    def __init__(
        self, tables: Tables, surroundings: Surroundings, start: Start, refuse: Refuse
    ) -> None:
        self._tables = tables
        self._surroundings = surroundings
        self._start = start
        self._refuse = refuse
        self.matcher = Matcher(surroundings, start)
        self._steps = 0
        self._opens = False

    def base(self, chain: Chain, states: list[State]) -> list[State]:
        """Walk a base chain; return what goes on to the next."""
        if chain.devices is None:
            rule = Rule(table=chain.table, chain=chain.name, text=f"chain {chain.name}", steps=())
            doubt = Doubt(Reason.UNKNOWN, "on which interfaces the chain stands", rule)
            aside = [replace(s, doubts=(*s.doubts, doubt)) for s in states]
            states = [replace(s, doubts=(*s.doubts, doubt)) for s in states]
        else:
            aside = []
        passed: list[State] = []
        self._opens = chain.hook in ("input", "forward") and BRIDGE not in chain.families
        for state in self._chain(chain, states, (), passed):
            if chain.policy is Verdict.ACCEPT:
                passed.append(state)
            else:
                policy = f"policy {chain.policy.value} of {chain.table} {chain.name}"
                self._refuse(state, (), policy, False)
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
                    raise TooManyError
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
            yes, no = self.matcher.match(step, state, way.rule)
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
                    self._refuse(one, (*one.path, *way.stack, way.rule), "", False)
        return passing

    def _choose(self, step: Choose, rest: Sequence[Step], states: list[State], way: _Way) -> None:
        for branch in step.branches:
            left: list[State] = []
            for state in states:
                yes, no = self.matcher.conjunction(branch.tests, state, way.rule)
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
                self._refuse(state, (*state.path, *rules), "", answered)
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

    def _sent(self, state: State, nat: Nat) -> State:
        now = dict(state.now)
        local, oif, cast = state.local, state.oif, state.cast
        if nat.port is not None:
            now["dport"] = nat.port
        if nat.is_redirect:
            now["daddr"] = self._own_addresses()
            local, cast = True, Cast.UNICAST
        elif nat.address is not None:
            now["daddr"] = nat.address or None
            local, oif = self._destination(nat.address)
            cast = Cast.UNICAST
        changed = nat.port is not None or nat.address is not None or nat.is_redirect
        if changed:
            now["ctstatus"] = only(_STATUS_DNAT)
        return replace(state, now=now, local=local, oif=oif, sent_on=True, cast=cast)

    def _own_addresses(self) -> Spans | None:
        here = self._surroundings.way_in(self._start.interface)[-1]
        found = [number for family, number in here.addresses if family == self._start.family]
        return only(*found) if found else None

    def _destination(self, addresses: Spans) -> tuple[bool | None, str | None]:
        """Tell whether addresses are the guest's own, and else by which interface they are reached
        if no rule of routing says otherwise.
        """
        surroundings, family = self._surroundings, self._start.family
        if not surroundings.is_known or not addresses:
            return None, None
        found = surroundings.look_up(family, LOCAL_TABLE, addresses)
        if found.fate is Fate.LOCAL:
            return True, None
        return (None, None) if found.fate is Fate.UNKNOWN else (False, None)
