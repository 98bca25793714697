"""Random rulesets in the languages of nft and of iptables, and the packets that try them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.kernel.ipt_rules import ipt_restore
from tests.kernel.lab import Packet
from tests.kernel.nft_rules import nft_ruleset
from tests.kernel.pools import OWN, PORTS, SENDERS

__all__ = ["RuleText", "packets", "rulesets"]

_PACKETS = 40


@dataclass(frozen=True, slots=True)
class RuleText:
    """Rules and how they are loaded.

    :param script: for ``bash`` on the host.
    :param uses_legacy: whether the kernel's old iptables holds some of them.
    """

    script: str
    uses_legacy: bool = False


@st.composite
def _nft(draw: st.DrawFn) -> RuleText:
    return RuleText(f"nft -f - <<'END'\n{draw(nft_ruleset())}\nEND\n")


@st.composite
def _iptables(draw: st.DrawFn) -> RuleText:
    legacy = draw(st.integers(0, 3)) == 0
    way = "legacy" if legacy else "nft"
    script = "set -e\n"
    for family, program in ((4, "iptables"), (6, "ip6tables")):
        script += f"{program}-{way}-restore <<'END'\n{draw(ipt_restore(family))}\nEND\n"
    if draw(st.integers(0, 5)) == 0:
        script += draw(_nft()).script
    return RuleText(script, legacy)


def rulesets() -> st.SearchStrategy[RuleText]:
    """Rulesets of nft and of iptables, some of both at once; a few are refused by the tools."""
    return st.one_of(_nft(), _nft(), _iptables())


@st.composite
def _packet(draw: st.DrawFn, number: int) -> Packet:
    family, link = (4, 6)[number % 2], number // 2 % 2
    other = draw(st.integers(0, 7)) == 0
    icmp, kinds = (1, (8, 8, 3, 13)) if family == 4 else (58, (128, 128, 137, 1))
    return Packet(
        link=link,
        protocol=draw(st.sampled_from((6, 6, 6, 17, 17, icmp, 50, 253))),
        source=draw(st.sampled_from(SENDERS[family][link])),
        destination=OWN[family][1 - link if other else link],
        # Each packet is a connection of its own.
        sport=draw(st.sampled_from((30000, 443, 53))) + number,
        dport=draw(st.sampled_from(PORTS)) - draw(st.sampled_from((0, 0, 0, 1))),
        kind=draw(st.sampled_from(kinds)),
        hops=draw(st.sampled_from((64, 64, 64, 50, 128))),
        traffic_class=draw(st.sampled_from((0, 0, 0, 32))),
        size=draw(st.sampled_from((8, 8, 30))),
    )


def packets() -> st.SearchStrategy[Sequence[Packet]]:
    """Packets that try a ruleset: each family and link, the ports that rules name and their
    neighbours.
    """
    return st.tuples(*(_packet(number) for number in range(_PACKETS)))
