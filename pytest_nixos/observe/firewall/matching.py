"""Whether a class of packets fulfils the conditions of a rule: the part that does, and the rest."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_nixos.observe.firewall.classes import (
    Start,
    State,
    doubted,
    masked,
    ranged,
)
from pytest_nixos.observe.firewall.model import Match, Reason, Rule, Test
from pytest_nixos.observe.firewall.routing import Surroundings
from pytest_nixos.observe.firewall.spans import only

__all__ = ["Cut", "Matcher"]

#: What fulfils a condition, and what does not.
Cut = tuple[list[State], list[State]]


class Matcher:
    """Cuts classes by conditions.

    :param start: the packets that are asked about.
    """

    def __init__(self, surroundings: Surroundings, start: Start) -> None:
        self._start = start
        way = surroundings.way_in(start.interface)
        self._bridge = next((i.master for i in way if i.master_kind == "bridge"), "")
        if not self._bridge and way[-1].device_kind == "bridge":
            self._bridge = way[-1].name
        # IP sees the packets of a VRF's port twice: as the port's, and as the VRF's.
        self._odd_master = way[-1].master
        self._marks_choose_routes = any(
            test.dimension == "mark"
            for policy in surroundings.policies
            if policy.family == start.family
            for step in policy.rule.steps
            if isinstance(step, Match)
            for tests in step.alternatives
            for test in tests
        )

    def match(self, step: Match, state: State, rule: Rule) -> Cut:
        """Cut a class by a condition of `rule`."""
        matched: list[State] = []
        rest = [state]
        for tests in step.alternatives:
            left: list[State] = []
            for one in rest:
                yes, no = self.conjunction(tests, one, rule)
                matched += yes
                left += no
            rest = left
            if not rest:
                break
        return (rest, matched) if step.negated else (matched, rest)

    def conjunction(self, tests: Sequence[Test], state: State, rule: Rule) -> Cut:
        """Cut a class by several tests, all of which have to hold."""
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

    def _test(self, test: Test, state: State, rule: Rule) -> Cut:
        yes: list[State]
        no: list[State]
        if test.dimension in ("iif", "oif", "ibr"):
            yes, no = self._named(test, state, rule)
        elif test.dimension == "local":
            yes, no = _destined(state, rule)
        elif test.dimension == "cast":
            sent = any(first <= state.cast.value <= last for first, last in test.values)
            yes, no = ([state], []) if sent else ([], [state])
        elif test.dimension == "honest":
            yes, no = self._honest(state, rule)
        elif test.mask is not None:
            yes, no = masked(test, state, rule)
        else:
            yes, no = ranged(test, state, rule)
        return (no, yes) if test.negated else (yes, no)

    def _named(self, test: Test, state: State, rule: Rule) -> Cut:
        if test.dimension == "ibr":
            name: str | None = self._bridge
        else:
            name = state.iif if test.dimension == "iif" else state.oif
        if not name:
            if name is None and state.local is not False:
                return [], [state]  # no packet leaves before it is routed
            return doubted(state, Reason.UNKNOWN, "by which interface it leaves", rule)
        fits = [
            any(one.startswith(n[:-1]) if n.endswith("*") else one == n for n in test.names)
            for one in (name, self._odd_master)
            if one
        ]
        if test.dimension == "iif" and len(set(fits)) > 1:
            about = f"whether {name} or {self._odd_master} counts as the interface it comes by"
            return doubted(state, Reason.UNKNOWN, about, rule)
        return ([state], []) if fits[0] else ([], [state])

    def _honest(self, state: State, rule: Rule) -> Cut:
        if self._marks_choose_routes and state.value("mark") != only(0):
            about = "whether the way back, chosen by a mark, is the way that it came"
            return doubted(state, Reason.UNKNOWN, about, rule)
        return ([state], []) if self._start.honest else ([], [state])


def _destined(state: State, rule: Rule) -> Cut:
    """Judge "the destination is an address of ours", with ``fib`` or ``addrtype``."""
    if state.local is None:
        return doubted(state, Reason.UNKNOWN, "whether the guest has the address", rule)
    return ([state], []) if state.local else ([], [state])
