"""The packet filter in one language, whichever tool wrote it: chains of rules, rules of steps.

A *dimension* is one thing about a packet that a rule can look at, as a number: ``dport``,
``saddr``, ``ip.ttl``. What a dimension may be is a set of numbers, so a class of packets is a box:
dimension to set. Only interfaces are names.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pytest_nixos.observe.firewall.spans import Spans, only, whole

__all__ = [
    "BRIDGE",
    "TRACKED",
    "Action",
    "Assign",
    "Branch",
    "Chain",
    "Chance",
    "Choose",
    "Match",
    "Nat",
    "Notrack",
    "Reason",
    "Rule",
    "Step",
    "Tables",
    "Test",
    "Verdict",
    "gathered",
    "universe",
]

#: The family of frames on their way through a bridge, beside 4 and 6; linux/netfilter.h.
BRIDGE = 7
#: States of packets that belong to a connection: established, related, new.
TRACKED = only(2, 4, 8)
_SIZES = {
    "family": 8,
    "protocol": 8,
    "sport": 16,
    "dport": 16,
    "ethertype": 16,
    "ctstate": 8,
    "icmp.type": 8,
    "icmp.code": 8,
    "icmpv6.type": 8,
    "icmpv6.code": 8,
    "tcp.flags": 8,
    "ip.ttl": 8,
    "ip.dscp": 6,
    "ip.ecn": 2,
    "ip.length": 16,
    "ip.id": 16,
    "ip.version": 4,
    "ip.hdrlength": 4,
    "ip6.hoplimit": 8,
    "ip6.length": 16,
    "ip6.dscp": 6,
    "ip6.ecn": 2,
    "ip6.version": 4,
    "tcp.window": 16,
    "tcp.sequence": 32,
    "tcp.ackseq": 32,
    "udp.length": 16,
    "pkttype": 8,
    "mark": 32,
    "ctmark": 32,
    "ctstatus": 32,
}
_WIDEST = 128


def universe(dimension: str) -> Spans:
    """Return every value that `dimension` can have."""
    return whole((1 << _SIZES.get(dimension, _WIDEST)) - 1)


class Verdict(enum.Enum):
    """How a rule ends."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    JUMP = "jump"
    GOTO = "goto"
    RETURN = "return"
    CONTINUE = "continue"


class Reason(enum.Enum):
    """Why a condition cannot be told from the packet alone."""

    LIMIT = "a rate or a number is limited"
    MEMORY = "it depends on what the rules remember of earlier packets"
    UNKNOWN = "it cannot be judged"


@dataclass(frozen=True, slots=True)
class Test:
    """Whether one dimension is in a set.

    :param names: for ``iif``, ``oif`` and ``ibr`` (the bridge whose port a frame came through):
        interfaces; a name may end in ``*``.
    :param mask: bits that are looked at, ``None`` for all.
    """

    __test__ = False  # no test class of pytest's

    dimension: str
    values: Spans = ()
    names: tuple[str, ...] = ()
    negated: bool = False
    mask: int | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Go on with packets that fulfil all tests of one of the alternatives (or, negated, of
    none).
    """

    alternatives: tuple[tuple[Test, ...], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Chance:
    """A condition that some packets fulfil, and we cannot tell which.

    :param otherwise: what becomes of the others.
    """

    reason: Reason
    about: str
    otherwise: Verdict = Verdict.CONTINUE


@dataclass(frozen=True, slots=True)
class Assign:
    """Set a dimension, from a constant or from bits of another: ``source & keep ^ flip``.

    :param source: dimension that is read, ``""`` for none.
    :param known: whether the value can be told at all.
    """

    dimension: str
    source: str = ""
    keep: int = 0
    flip: int = 0
    known: bool = True


@dataclass(frozen=True, slots=True)
class Nat:
    """Send the packet elsewhere; ends the chain.

    :param address: where to; ``None`` leaves it, or for `is_redirect` means this host.
    :param port: ``None`` leaves it.
    """

    address: Spans | None = None
    port: Spans | None = None
    is_redirect: bool = False


@dataclass(frozen=True, slots=True)
class Notrack:
    """Keep the packet from being tracked."""


@dataclass(frozen=True, slots=True)
class Action:
    """End the rule with a verdict."""

    verdict: Verdict
    target: str = ""


@dataclass(frozen=True, slots=True)
class Branch:
    """What is done with packets that fulfil the tests."""

    tests: tuple[Test, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Choose:
    """A map: the first branch that fits; the rule ends for packets that none fits."""

    branches: tuple[Branch, ...]


Step = Match | Chance | Assign | Nat | Notrack | Action | Choose


# Conditions that many rules share come first, so that rules about many senders do not cut
# everything else apart.
_ORDER = {
    name: rank
    for rank, name in enumerate(
        (
            "iif",
            "ibr",
            "oif",
            "family",
            "ctstate",
            "protocol",
            "local",
            "cast",
            "honest",
            "dport",
            "sport",
        )
    )
}
_LAST = {"daddr": 98, "saddr": 99}


def gathered(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Put neighbouring conditions into one, in an order that keeps classes few; they are all
    asked for anyway.
    """
    found: list[Step] = []
    tests: list[Test] = []
    others: list[Step] = []

    def close() -> None:
        if tests:
            ordered = sorted(
                tests, key=lambda t: _ORDER.get(t.dimension, _LAST.get(t.dimension, 50))
            )
            found.append(Match((tuple(ordered),)))
        found.extend(others)
        tests.clear()
        others.clear()

    for step in steps:
        if not isinstance(step, Match):
            close()
            found.append(step)
        elif len(step.alternatives) == 1 and not step.negated:
            tests.extend(step.alternatives[0])
        elif len(step.alternatives) == 1 and len(step.alternatives[0]) == 1:
            (test,) = step.alternatives[0]
            tests.append(replace(test, negated=not test.negated))
        else:
            others.append(step)
    close()
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    :param text: as the guest's own tool prints it.
    """

    table: str
    chain: str
    text: str
    steps: tuple[Step, ...]

    @property
    def verdict(self) -> Verdict:
        """The verdict that it ends with."""
        last = self.steps[-1] if self.steps else None
        return last.verdict if isinstance(last, Action) else Verdict.CONTINUE

    @property
    def is_telling(self) -> bool:
        """Whether it looks at more than the state of the connection and the way back to the
        sender.
        """
        tests = [
            test
            for step in self.steps
            for tests in _alternatives(step)
            for test in tests
            if test.dimension not in ("ctstate", "honest")
        ]
        return bool(tests) or any(isinstance(s, Chance | Nat) for s in self.steps)


def _alternatives(step: Step) -> tuple[tuple[Test, ...], ...]:
    if isinstance(step, Match):
        return step.alternatives
    if isinstance(step, Choose):
        return tuple(branch.tests for branch in step.branches)
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One chain with its rules.

    :param table: ``inet nixos-fw``, or ``ip filter``.
    :param families: families whose packets it sees.
    :param hook: ``input``, ``prerouting``, ...; ``""`` for a chain that is only jumped to.
    :param policy: what becomes of packets that no rule decides, for base chains.
    :param kind: ``filter``, ``nat`` or ``route``, for base chains.
    :param devices: interfaces of an ``ingress`` chain; ``None`` if they could not be read.
    """

    table: str
    name: str
    rules: tuple[Rule, ...]
    families: tuple[int, ...]
    hook: str = ""
    policy: Verdict = Verdict.ACCEPT
    priority: int = 0
    kind: str = ""
    devices: tuple[str, ...] | None = ()


Tables = Mapping[str, Mapping[str, Chain]]
