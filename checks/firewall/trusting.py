"""Interfaces that a host trusts and that strangers come through: it is open to all then."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pytest_nixos import Evidence, Firewall, observe

from .declaring import remedy_of_trust
from .opened import Undeclared, ranges_on, trusted_ways_out
from .ports import covers

__all__ = ["blame_trust", "rest_on_trust", "rest_reach_on_trust"]

# What their finding blames, and the others rest on.
_TRUST = ("network", "trusted interface")


def blame_trust(
    evidence: Evidence,
    declared: Firewall,
    state: observe.FirewallState,
    listening: Collection[int],
) -> None:
    """Say that such an interface is the cause, and what mends it.

    :param listening: ports of TCP on which somebody listens.
    """
    if trusted := trusted_ways_out(declared, state):
        evidence.blame(*_TRUST)
        known = ranges_on(declared, "tcp", trusted[0])
        ports = [port for port in listening if not covers(known, port)]
        evidence.remedy = remedy_of_trust(trusted, ports)


def rest_on_trust(
    evidence: Evidence,
    declared: Firewall,
    state: observe.FirewallState,
    found: Sequence[Undeclared],
) -> None:
    """Say that ways in by such interfaces alone are told by their finding."""
    outer = trusted_ways_out(declared, state)
    if outer and found and all(name in outer for way in found for name, _ in way.places):
        evidence.rest_on(*_TRUST)
        evidence.remedy = (
            "# An interface is trusted that strangers come through: FW-003 says what mends that."
        )


def rest_reach_on_trust(
    evidence: Evidence, outer: Collection[str], reached: Mapping[str, Collection[int]]
) -> None:
    """Say so of ports that a stranger reached, by interface."""
    if outer and reached.keys() <= set(outer):
        evidence.rest_on(*_TRUST)
        evidence.remedy = remedy_of_trust(sorted(outer), set().union(*reached.values()))
