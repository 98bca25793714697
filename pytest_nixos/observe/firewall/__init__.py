"""The packet filter in force: what it lets in, whichever of nftables and iptables made it.

Both languages are read into one (:mod:`.model`), classes of packets are walked through it as the
kernel walks a packet (:mod:`.evaluate`), and the outcomes are put together into openings
(:mod:`.reach`).
"""

from pytest_nixos.observe.firewall.classes import Cast
from pytest_nixos.observe.firewall.opening import Decision, Opening, PortJudgement
from pytest_nixos.observe.firewall.probe import FirewallState, Tool, firewall
from pytest_nixos.observe.firewall.reach import Reach
from pytest_nixos.observe.firewall.ruleset import STRANGER, Judgement, Ruleset

__all__ = [
    "STRANGER",
    "Cast",
    "Decision",
    "FirewallState",
    "Judgement",
    "Opening",
    "PortJudgement",
    "Reach",
    "Ruleset",
    "Tool",
    "firewall",
]
