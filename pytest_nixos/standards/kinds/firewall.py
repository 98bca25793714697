"""The kind about the packet filter in force."""

from __future__ import annotations

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.firewall.probe import FirewallState, firewall
from pytest_nixos.standards.control.declared_facts import forwards
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters

__all__ = ["KINDS"]

_FACTS = ("active", "backend", "refuses-by-default", "reverse-path", "limits", "forward")


def _firewall(state: FirewallState, parameters: Parameters, host: HostConfig) -> Sight:
    fact = parameters["fact"]
    if fact == "forward" and not forwards(host):
        return Unseen("the host declares nothing that forwards packets", applicable=False)
    if fact == "active":
        return Seen(state.is_active)
    if not state.is_known:
        return Unseen("no tool on the machine could show the packet filter's rules")
    rules = state.ruleset
    match fact:
        case "backend":
            nft = any(name.startswith("inet ") for name in rules.tables)
            return Seen("nftables" if nft else "iptables" if rules.tables else "none")
        case "refuses-by-default":
            return Seen(all(rules.refuses_by_default(family=f) for f in ("ip", "ip6")))
        case "reverse-path":
            return Seen(rules.has_reverse_path_filter)
        case "forward" if not forwards(host):
            return Unseen("the host declares nothing that forwards packets", applicable=False)
        case "forward":
            refused = all(rules.refuses_to_forward(family=f) for f in ("ip", "ip6"))
            return Seen(["drop"] if refused else ["accept"])
        case _:
            return Seen(list(rules.limits))


KINDS = (
    Kind(
        name="firewall",
        reads="the packet filter in force",
        probe=lambda _, __: firewall(),
        find=_firewall,
        parameters={"fact": Parameter(required=True, choices=_FACTS)},
        options=lambda p: ("systemd.network.networks",) if p.get("fact") == "forward" else (),
    ),
)
