"""The evaluator says what the kernel does: random rulesets, loaded by the real nft and iptables,
tried with real packets.

``./dev bench firewall`` tries twenty times as many.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.kernel.lab import Lab, Packet, missing_packages
from tests.kernel.rulesets import RuleText, packets, rulesets
from tests.kernel.trial import attempt

RULESETS = 100

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and raw sockets need root"),
    pytest.mark.skipif(
        bool(missing_packages()),
        reason=f"missing: {', '.join(missing_packages())}; ./dev test installs them",
    ),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as found:
        yield found


# Shrinking would load thousands of rulesets more; the whole of one is short enough to read.
@seed(20261128)
@settings(
    max_examples=RULESETS,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(rules=rulesets(), tried=packets())
def test_the_evaluator_is_equal_to_the_kernel(
    lab: Lab, rules: RuleText, tried: tuple[Packet, ...]
) -> None:
    trial = attempt(lab, rules, tried)
    assert not trial.wrong, "\n".join(trial.wrong)


STRANGER = Packet(link=0, protocol=6, source="10.77.0.9", destination="10.77.0.2", dport=22)


@pytest.mark.parametrize(("policy", "arrives"), [("accept", True), ("drop", False)])
def test_the_lab_itself_tells_what_is_let_in(lab: Lab, policy: str, arrives: bool) -> None:
    rules = f"table inet t {{\nchain c {{\ntype filter hook input priority 0; policy {policy};\n}}\n}}\n"
    assert lab.load(f"nft -f - <<'END'\n{rules}END\n").returncode == 0
    try:
        assert lab.send([STRANGER]) == [arrives]
    finally:
        lab.clear(legacy=False)


def test_what_is_sent_on_is_seen_behind_the_host(lab: Lab) -> None:
    rules = (
        "table ip t {\nchain c {\ntype nat hook prerouting priority dstnat;\n"
        "tcp dport 8123 dnat to 10.79.0.2:80\n}\n}\n"
    )
    assert lab.load(f"nft -f - <<'END'\n{rules}END\n").returncode == 0
    try:
        (opening,) = [
            o
            for o in lab.observe().ruleset.reach(interface="eth0").openings()
            if o.protocol == 6 and o.target
        ]
        assert opening.what == "tcp 8123, sent on to 10.79.0.2:80"
        assert opening.forwarded
    finally:
        lab.clear(legacy=False)
