"""Classes of packets on their way, what is assumed of them, and how a test cuts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_nixos.observe.firewall.cast import Cast
from pytest_nixos.observe.firewall.model import (
    Action,
    Assign,
    Chance,
    Match,
    Notrack,
    Reason,
    Rule,
    Step,
    Test,
    Verdict,
    universe,
)
from pytest_nixos.observe.firewall.spans import Spans, cut, joined, meet, only

__all__ = [
    "NO_RULE",
    "Box",
    "Doubt",
    "Outcome",
    "Start",
    "State",
    "changed",
    "compacted",
    "cut_state",
    "decides",
    "doubted",
    "masked",
    "ranged",
    "with_now",
]

Box = Mapping[str, Spans]

_FEW = 16


@dataclass(frozen=True, slots=True)
class Doubt:
    """A condition that was taken to hold, or not to, without knowing.

    :param rule: the rule whose condition it is.
    """

    reason: Reason
    about: str
    rule: Rule
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Start:
    """The packets that are asked about.

    :param box: what is known of them; a dimension that is missing may be anything.
    :param to_host: whether they are sent to an address of the guest.
    :param honest: whether the way back to the sender is the way that they come.
    :param cast: whom they are sent to.
    """

    family: int
    interface: str
    box: Mapping[str, Spans]
    to_host: bool = True
    honest: bool = True
    cast: Cast = Cast.UNICAST


@dataclass(frozen=True, slots=True)
class State:
    """A class of packets somewhere on its way.

    :param box: the packets as they were sent.
    :param now: dimensions that rules or the kernel have set since; ``None`` for a value that nobody
        knows.
    :param path: rules that decided before, at other base chains.
    :param tracked: whether the kernel remembers them as a connection.
    :param local: whether they are for the guest itself; ``None`` if that cannot be told.
    :param oif: the interface by which they leave, once that is known; ``""`` for one of several.
    :param sent_on: whether a rule has sent them elsewhere.
    :param iif: the interface that they come by, as rules see it here.
    :param cast: whom they are sent to now.
    """

    box: Box
    now: Mapping[str, Spans | None]
    doubts: tuple[Doubt, ...] = ()
    path: tuple[Rule, ...] = ()
    tracked: bool = True
    local: bool | None = True
    oif: str | None = None
    sent_on: bool = False
    iif: str = ""
    cast: Cast = Cast.UNICAST

    def value(self, dimension: str) -> Spans | None:
        """Return what a dimension may be now; ``None`` if a rule changed it to something
        unknown.
        """
        if dimension in self.now:
            return self.now[dimension]
        found = self.box.get(dimension)
        return universe(dimension) if found is None else found


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one class of packets.

    :param box: the class, as the packets were sent.
    :param accepted: whether they arrive at a socket of the guest, or are forwarded where a rule
        sends them.
    :param rules: the rules that decided, outermost first.
    :param policy: where no rule did: the base chain whose policy did.
    :param address: where a rule sent them, ``None`` if nowhere else.
    :param port: likewise.
    :param forwarded: whether they leave the guest again.
    :param answered: for refused ones: whether the sender is told.
    """

    box: Box
    accepted: bool
    rules: tuple[Rule, ...]
    doubts: tuple[Doubt, ...] = ()
    policy: str = ""
    address: Spans | None = None
    port: Spans | None = None
    forwarded: bool = False
    answered: bool = False


NO_RULE = Rule(table="", chain="", text="", steps=())


def compacted(states: Sequence[State]) -> list[State]:
    """Join classes that differ in their ports or their senders only: rules cut them apart one by
    one.
    """
    found = list(states)
    for dimension in ("dport", "saddr"):
        groups: dict[object, list[State]] = {}
        for state in found:
            groups.setdefault(_all_but(dimension, state), []).append(state)
        found = [_union(dimension, group) for group in groups.values()]
    return found


def _all_but(dimension: str, state: State) -> object:
    rest = tuple(sorted((d, values) for d, values in state.box.items() if d != dimension))
    now = tuple(sorted(state.now.items(), key=lambda pair: pair[0]))
    return (
        rest,
        now,
        state.doubts,
        state.path,
        state.tracked,
        state.local,
        state.oif,
        state.sent_on,
        state.iif,
        state.cast,
    )


def _union(dimension: str, states: Sequence[State]) -> State:
    first, *rest = states
    if not rest:
        return first
    parts = [state.box.get(dimension) for state in states]
    box = {d: values for d, values in first.box.items() if d != dimension}
    if None not in parts:
        box[dimension] = joined(span for part in parts if part is not None for span in part)
    return replace(first, box=box)


def with_now(state: State, **now: Spans | None) -> State:
    """Return the state with dimensions that rules have changed; ``None`` for a value that nobody
    knows.
    """
    return replace(state, now={**state.now, **now})


def cut_state(state: State, dimension: str, values: Spans) -> tuple[State | None, State | None]:
    """Cut the class as it was sent, whatever rules made of it."""
    before = state.box.get(dimension)
    before = universe(dimension) if before is None else before
    inside, outside = meet(before, values), cut(before, values)
    yes = replace(state, box={**state.box, dimension: inside}) if inside else None
    no = replace(state, box={**state.box, dimension: outside}) if outside else None
    return yes, no


def ranged(test: Test, state: State, rule: Rule) -> tuple[list[State], list[State]]:
    """Cut a state by a test for values: what passes, and what does not."""
    if test.dimension not in state.now:
        # "ct original ..." looks at the packet as it was sent.
        inside, outside = cut_state(state, test.dimension.removeprefix("ct."), test.values)
        return ([inside] if inside else []), ([outside] if outside else [])
    value = state.now[test.dimension]
    if value is not None:
        found = meet(value, test.values)
        if found == value:
            return [state], []
        if not found:
            return [], [state]
    return doubted(state, Reason.UNKNOWN, f"what {test.dimension} has become", rule)


def masked(test: Test, state: State, rule: Rule) -> tuple[list[State], list[State]]:
    """Cut a state by a test of some bits."""
    assert test.mask is not None
    value = state.value(test.dimension)
    if value is not None and sum(last - first + 1 for first, last in value) <= _FEW:
        numbers = [n for first, last in value for n in range(first, last + 1)]
        fitting = [n for n in numbers if any(a <= n & test.mask <= b for a, b in test.values)]
        if not fitting or len(fitting) == len(numbers):
            return ([state], []) if fitting else ([], [state])
        if test.dimension not in state.now:
            inside, outside = cut_state(state, test.dimension, only(*fitting))
            return ([inside] if inside else []), ([outside] if outside else [])
    return doubted(state, Reason.UNKNOWN, f"some bits of {test.dimension}", rule)


def doubted(
    state: State, reason: Reason, about: str, rule: Rule
) -> tuple[list[State], list[State]]:
    """Go both ways; what was assumed of the same rule before is assumed again."""
    for doubt in state.doubts:
        if doubt.rule is rule and doubt.about == about and reason is Reason.UNKNOWN:
            return ([state], []) if doubt.holds else ([], [state])
    yes = replace(state, doubts=(*state.doubts, Doubt(reason, about, rule, holds=True)))
    no = replace(state, doubts=(*state.doubts, Doubt(reason, about, rule, holds=False)))
    return [yes], [no]


def decides(steps: Sequence[Step]) -> bool:
    """Whether anything in the rest of a rule changes what becomes of a packet."""
    return any(
        not (
            isinstance(s, Match | Chance)
            or (isinstance(s, Action) and s.verdict is Verdict.CONTINUE)
        )
        for s in steps
    )


def changed(state: State, step: Assign | Notrack) -> State:
    """Return the state after a statement that changes packets."""
    return replace(state, tracked=False) if isinstance(step, Notrack) else _assigned(state, step)


def _assigned(state: State, step: Assign) -> State:
    value: Spans | None = None
    if step.known and not step.source:
        value = only(step.flip)
    elif step.known:
        old = state.value(step.source)
        if old is not None and len(old) == 1 and old[0][0] == old[0][1]:
            value = only(old[0][0] & step.keep ^ step.flip)
    changed = with_now(state, **{step.dimension: value})
    return replace(changed, local=None) if step.dimension == "daddr" else changed
