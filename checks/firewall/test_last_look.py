"""The last look: the rules that were judged are still those in force."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, Observations, not_applicable, observe

from .declaring import remedy_of_ways
from .opened import Undeclared, undeclared
from .ports import FAMILIES, UDP_PROTOCOLS


@pytest.mark.nixos_last_look
@pytest.mark.nixos_control("FW-010")
def test_nothing_was_opened_since(
    nixos_machine: Machine,
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    if not nixos_host_config.firewall.enabled:
        not_applicable("networking.firewall.enable is false")
    first = nixos_observations.of(observe.firewall())
    last = observe.observe(nixos_machine.run, observe.firewall(name="firewall-at-last"))
    nixos_evidence.expect("no way in that was not there at the first look")
    for state, when in ((first, "first"), (last, "last")):
        if not state.is_known or state.unseen:
            not_applicable(f"unknown: the rules at the {when} look are not all known")
    known = {_way(way) for way in _undeclared(nixos_host_config, first)}
    opened = [w for w in _undeclared(nixos_host_config, last) if _way(w) not in known]
    refuses = {
        name: last.ruleset.default(family=family).decision is observe.Decision.REFUSED
        or first.ruleset.default(family=family).decision is not observe.Decision.REFUSED
        for family, name in FAMILIES.items()
    }
    nixos_evidence.observe(
        {"opened": [str(way) for way in opened], "refuses by default as before": refuses}
    )
    if opened:
        nixos_evidence.attach("ruleset at the first look", first.text)
        nixos_evidence.attach("ruleset at the last look", last.text)
        nixos_evidence.remedy = remedy_of_ways(opened)
    assert not opened, f"opened since the first look: {'; '.join(str(way) for way in opened)}"
    lost = [name for name, same in refuses.items() if not same]
    assert not lost, f"no longer refused by default since the first look: {', '.join(lost)}"


def _undeclared(host: HostConfig, state: observe.FirewallState) -> list[Undeclared]:
    udp = undeclared(host.firewall, state, protocols=UDP_PROTOCOLS)
    return [*undeclared(host.firewall, state), *udp]


def _way(way: Undeclared) -> tuple[object, ...]:
    """What it lets in and where; counters and handles of its rules may change."""
    return way.what, way.opening.decision, way.places
