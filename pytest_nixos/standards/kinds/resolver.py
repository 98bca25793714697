"""The kind about name resolution: what is in force, and on each link that has a server of its
own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.unit import switch_word
from pytest_nixos.observe.network.resolver import LinkResolver, Resolver, resolver
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import Kind, Parameter, Parameters

__all__ = ["KINDS"]

_NETWORKS = "systemd.network.networks"
_DECLARED = {"dnssec": "DNSSEC", "dns-over-tls": "DNSOverTLS"}


def _resolver(found: Resolver | str | None, parameters: Parameters, host: HostConfig) -> Sight:
    if found is None:
        return Unseen("systemd-resolved gave no answer")
    if isinstance(found, str):
        return Unseen(found)
    field = str(parameters["field"])
    seen = {f"link {name}": _value(link, field) for name, link in found.links.items()}
    return Seen(_value(found.everywhere, field), cases={**_declared(host, field), **seen})


def _value(link: LinkResolver, field: str) -> str:
    return link.dnssec if field == "dnssec" else link.dns_over_tls


def _declared(host: HostConfig, field: str) -> Mapping[str, str]:
    """Return what the host declares for links: this machine may lack them."""
    networks = host.option(_NETWORKS).value
    found = {}
    for name, network in networks.items() if isinstance(networks, Mapping) else ():
        config = network.get("networkConfig") if isinstance(network, Mapping) else None
        value: Any = config.get(_DECLARED[field]) if isinstance(config, Mapping) else None
        if value is not None and network.get("enable", True):
            found[f"{_NETWORKS}.{name}"] = switch_word(value)
    return found


KINDS = (
    Kind(
        name="resolver",
        reads="what systemd-resolved does with answers, for all and for each link",
        probe=lambda _, __: resolver(),
        find=_resolver,
        parameters={"field": Parameter(required=True, choices=tuple(_DECLARED))},
        options=lambda _: (_NETWORKS,),
    ),
)
