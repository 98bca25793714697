"""Kinds about the network: where a port is listened on, and declared addresses that no interface
has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.network.socket import Protocol, Sockets, addresses, sockets
from pytest_nixos.standards.control.placeholders import filled, opened, placeholder_options
from pytest_nixos.standards.control.seen import Seen, Sight, Unseen
from pytest_nixos.standards.kinds.kind import NEEDED, TEXTS, Kind, Parameters

__all__ = ["KINDS"]

Json = Any


def _socket(found: Sockets, parameters: Parameters, host: HostConfig) -> Sight:
    port = filled(str(parameters["port"]), host)
    if isinstance(port, Unseen):
        return port
    if not str(port.value).isdecimal():
        return Unseen(f"the host declares no port number, but {port.value!r}")
    return Seen(list(found.addresses(Protocol.TCP, int(port.value))))


def _is_silent(found: Sockets, parameters: Parameters, host: HostConfig) -> bool:
    if not opened(parameters.get("opened-by", ()), host):
        return False
    sight = _socket(found, parameters, host)
    return isinstance(sight, Seen) and not sight.value


def _address(found: Sequence[str] | None, _: Parameters, host: HostConfig) -> Sight:
    declared = _declared_addresses(host.option("systemd.network.networks").value)
    if not declared:
        return Unseen("the host declares no static address", applicable=False)
    if found is None:
        return Unseen("the addresses could not be read")
    return Seen([address for address in declared if address not in found])


def _declared_addresses(networks: Json) -> list[str]:
    found: list[str] = []
    for network in networks.values() if isinstance(networks, Mapping) else ():
        if not isinstance(network, Mapping) or not network.get("enable", True):
            continue
        values = network.get("address") or []
        config = network.get("networkConfig")
        more = config.get("Address") if isinstance(config, Mapping) else None
        found += [*values, *(more if isinstance(more, list) else [more] if more else [])]
    return list(dict.fromkeys(str(address) for address in found))


KINDS = (
    Kind(
        name="socket",
        reads="addresses on which a TCP port is listened on; an option may name the port",
        probe=lambda _, __: sockets(),
        find=_socket,
        parameters={"port": NEEDED, "opened-by": TEXTS},
        unready=_is_silent,
        options=lambda p: (*placeholder_options(str(p.get("port", ""))), *p.get("opened-by", ())),
    ),
    Kind(
        name="address",
        reads="declared addresses that no interface has",
        probe=lambda _, __: addresses(),
        find=_address,
        options=lambda _: ("systemd.network.networks",),
    ),
)
