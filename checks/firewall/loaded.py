"""Why a declared firewall is not in force."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_nixos import Evidence, HostConfig, Observations, observe

from .opened import Undeclared, extra_rule_texts
from .ports import FAMILIES

__all__ = ["FILTER", "failed_units", "rest_on_the_filter", "why_not_active", "why_open"]

#: What the first finding of a firewall that is not in force blames, and the others rest on.
FILTER = ("network", "packet filter")
_FLUSH = re.compile(r"^\s*flush\s+(?:ruleset|table\s+inet\s+nixos-fw)\b", re.MULTILINE)
# Programs that do so.
_FLUSHES = re.compile(
    r"\bnft\b[^|;&\n]*\bflush\s+ruleset\b|\bip6?tables(?:-\w+)?\b(?![^|;&\n]*-t\s)[^|;&\n]*\s(?:-F|--flush)\b"
)
_CHAIN = "nixos-fw"


def failed_units(state: observe.FirewallState) -> list[str]:
    """Return the units that should have loaded the rules and failed."""
    return [name for name, active in state.units.items() if active == "failed"]


def rest_on_the_filter(
    evidence: Evidence, state: observe.FirewallState, found: Sequence[Undeclared] = ()
) -> None:
    """Say that a verdict is about its own control only where rules are in force: where none are,
    everything is let in, and that is one finding.

    :param found: the ways in that are found; one that has a rule of its own is no echo.
    """
    evidence.rest_on("unit", *failed_units(state))
    defaults = [state.ruleset.default(family=family) for family in FAMILIES]
    opened = [one for one in defaults if one.decision is not observe.Decision.REFUSED]
    # What a rule lets in by default is told with that rule.
    if any(way.opening.rules for way in found) or any(one.rules for one in opened):
        return
    evidence.rest_on(*FILTER)
    if opened:
        evidence.remedy = "# The rules that refuse what is not declared are not in force: FW-001 says what mends that."


def why_not_active(
    state: observe.FirewallState, host: HostConfig, observations: Observations, evidence: Evidence
) -> str:
    """Say why no unit has loaded the rules, with the journal of one that failed."""
    failed = failed_units(state)
    journals = {name: observations.of(observe.journal(name)) for name in failed}
    for name, journal in journals.items():
        evidence.attach(f"journal of {name}", "\n".join(journal))
    failures = observe.why_failed(journals, host)
    evidence.remedy = failures.remedy
    return f"failed: {failures.words}" if failed else str(dict(state.units))


def why_open(
    state: observe.FirewallState, family: str, host: HostConfig, evidence: Evidence
) -> str:
    """Say why a packet that no rule names is let in though the unit is active, ``""`` where nothing
    tells.

    :param family: ``ip`` or ``ip6``.
    """
    gone = _gone(state, family)
    if not gone:
        rules = state.ruleset.default(family=family).rules
        if rules:
            evidence.remedy = (
                f"# Take the rule away that lets in everything, or have it name what it is for: {rules[-1]}\n"
                "# (networking.firewall.extraCommands, extraInputRules, networking.nftables)"
            )
        return f": {' -> '.join(rules)}" if rules else ""
    flushing = [path for path, text in extra_rule_texts(host).items() if _FLUSH.search(text)]
    if flushing:
        evidence.remedy = "\n".join(
            f"# {path} takes the firewall's own table away: leave its line with flush out. Tables of your own go into\n"
            '# networking.nftables.tables."<name>", which are made anew by themselves.'
            for path in flushing
        )
        return f", since {gone}: {', '.join(flushing)} flushes it"
    units = [
        name
        for name, unit in sorted(host.units.items())
        if unit.enabled
        and name not in state.units
        and any(_FLUSHES.search(text) for text in observe.started_texts(unit))
    ]
    evidence.remedy = "\n".join(
        f"# {name} takes the firewall's rules away: take that out of its script." for name in units
    ) or (
        "# Something took the firewall's rules away after they were loaded: look for\n"
        '# "flush ruleset" in networking.nftables and for nft and iptables -F in services.'
    )
    return f", since {gone}" + (f": {', '.join(units)} takes it away" if units else "")


def _gone(state: observe.FirewallState, family: str) -> str:
    """Return what of the NixOS firewall's own rules is not there, ``""`` for nothing."""
    tables = state.ruleset.tables
    if state.units.get("nftables.service") == "active":
        return "" if "inet nixos-fw" in tables else "the table inet nixos-fw is not there"
    if state.units.get("firewall.service") != "active":
        return ""
    chains = tables.get(f"{family} filter", {})
    if not any(
        _CHAIN in rule.text for rule in (chains["INPUT"].rules if "INPUT" in chains else ())
    ):
        return f"its chain INPUT does not lead to {_CHAIN}"
    return "" if _CHAIN in chains else f"the chain {_CHAIN} is not there"
