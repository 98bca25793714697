"""One trial: a ruleset is loaded, packets are sent, and the evaluator has to have said what the
kernel does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_nixos.observe.firewall.opening import Decision
from tests.kernel.lab import Lab, Packet
from tests.kernel.rulesets import RuleText

__all__ = ["Tally", "Trial", "attempt", "compare"]

_NAMES = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one ruleset.

    :param refused: whether the tools would not load it.
    :param unjudged: packets of which the evaluator says that it cannot tell.
    :param evaluated_s: seconds that the evaluator took for both interfaces and families.
    :param wrong: packets on which evaluator and kernel disagree, in words.
    """

    refused: bool = False
    accepted: int = 0
    dropped: int = 0
    unjudged: int = 0
    evaluated_s: float = 0.0
    wrong: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """Trials, counted."""

    rulesets: int = 0
    refused: int = 0
    accepted: int = 0
    dropped: int = 0
    unjudged: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        self.rulesets += not trial.refused
        self.refused += trial.refused
        self.accepted += trial.accepted
        self.dropped += trial.dropped
        self.unjudged += trial.unjudged
        self.wrong += trial.wrong


def attempt(lab: Lab, rules: RuleText, packets: Sequence[Packet]) -> Trial:
    """Load `rules`, send `packets`, and compare."""
    loaded = lab.load(rules.script)
    try:
        if loaded.returncode != 0:
            return Trial(refused=True)
        return compare(lab, packets, of=rules.script)
    finally:
        lab.clear(legacy=rules.uses_legacy)


def compare(lab: Lab, packets: Sequence[Packet], *, of: str) -> Trial:
    """Send `packets` to the rules that are loaded, and compare.

    :param of: what a disagreement is told with.
    """
    state = lab.observe()
    begin = lab.next_number
    arrived = lab.send(packets)
    assert state.is_known and state.ruleset.surroundings.is_known, "the lab shows no rules"
    if state.unseen:
        return Trial(wrong=(f"{state.unseen} of {of}",))
    began_s = time.perf_counter()
    for link in (0, 1):
        for name in _NAMES.values():
            state.ruleset.reach(interface=f"eth{link}", family=name)
    evaluated_s = time.perf_counter() - began_s
    accepted = dropped = unjudged = 0
    wrong = []
    for number, (packet, got) in enumerate(zip(packets, arrived, strict=True), start=begin):
        reach = state.ruleset.reach(interface=f"eth{packet.link}", family=_NAMES[packet.family])
        decision, deciding = reach.at(packet.point(number))
        if decision in (Decision.UNKNOWN, Decision.CONDITIONAL):
            unjudged += 1
        elif (decision is Decision.ACCEPTED) != got:
            happened = "let in" if got else "not let in"
            words = f"{happened}, said {decision.value} by {deciding}"
            wrong.append(f"{packet}: {words}\n{of}")
        accepted += got
        dropped += not got
    return Trial(
        accepted=accepted,
        dropped=dropped,
        unjudged=unjudged,
        evaluated_s=evaluated_s,
        wrong=tuple(wrong),
    )
