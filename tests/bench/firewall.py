"""The firewall's evaluator against the kernel: random rulesets, real packets; and how long an
evaluation takes.
"""

from __future__ import annotations

import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.bench.figures import Goal, Sample, Section
from tests.bench.rig import Plan, RunFailed, say
from tests.kernel.lab import Lab, Packet, missing_packages
from tests.kernel.rulesets import RuleText, packets, rulesets
from tests.kernel.trial import Tally, attempt

_RULESETS, _QUICK = 2000, 50
_SHOWN = 3


def measure(directory: Path, plan: Plan) -> Section:
    """Try rulesets and count disagreements.

    :raises RunFailed: if a program is missing.
    """
    if missing := missing_packages():
        raise RunFailed(f"missing: {', '.join(missing)}")
    count = _QUICK if plan.quick else _RULESETS
    say(f"firewall: {count} random rulesets")
    tally = Tally()
    spent_s: list[float] = []
    began_s = time.monotonic()
    with Lab() as lab:

        @seed(1)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(rules=rulesets(), tried=packets())
        def compare(rules: RuleText, tried: tuple[Packet, ...]) -> None:
            trial = attempt(lab, rules, tried)
            tally.add(trial)
            spent_s.append(trial.evaluated_s)

        compare()
    total_s = time.monotonic() - began_s
    for words in tally.wrong[:_SHOWN]:
        say(words)
    (directory / "wrong.txt").write_text("\n\n".join(tally.wrong))
    sent = tally.accepted + tally.dropped
    judging = Sample(values=tuple(1000 * s for s in sorted(spent_s)), unit="ms")
    rows = (
        ("rulesets loaded by nft and iptables", str(tally.rulesets)),
        ("- refused by the tools", str(tally.refused)),
        ("packets sent", str(sent)),
        ("- let in by the kernel", str(tally.accepted)),
        ("- of which the evaluator says that it cannot tell", str(tally.unjudged)),
        ("disagreements", str(len(tally.wrong))),
        ("evaluating one ruleset for two interfaces and both families", str(judging)),
        ("in all", f"{total_s:.0f} s"),
    )
    return Section(
        name="firewall",
        title="The firewall's evaluator against the kernel",
        lead=(
            "Random rulesets in the languages of nft and iptables (both backends of iptables, some of them beside nft's own tables) are loaded in a network namespace by "
            "the real programs; 40 packets of both families are sent through two interfaces of each, and what arrives is held against what the evaluator says."
        ),
        header=("what", "figure"),
        rows=rows,
        goals=(
            Goal(
                wanted=f"evaluator equal to the kernel on at least {_RULESETS} rulesets",
                got=f"{len(tally.wrong)} disagreements on {tally.rulesets}",
                reached=not tally.wrong and tally.rulesets >= _RULESETS,
                reason="a quick run tries fewer" if plan.quick and not tally.wrong else "",
            ),
        ),
    )
