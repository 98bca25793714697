"""Ports that a host opens and on which nothing listens that a stranger could reach, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from pytest_nixos import HostConfig, PortRange, observe

__all__ = ["cut_off", "remedy_of_idle", "told_idle"]

_PORT = re.compile(r"(?<![\w.-])(?:\S*[:=])?(\d{2,5})(?![\w.-])")
_NOBODY: Mapping[int, str] = MappingProxyType({})

_OPTIONS = "networking.firewall (allowedTCPPorts, allowedTCPPortRanges, interfaces, openFirewall of its service)"


def cut_off(host: HostConfig) -> Mapping[int, str]:
    """Return port to the service whose command names it and that has a network of its own, where nobody
    reaches it.
    """
    return {
        int(port): name
        for name, unit in host.units.items()
        if unit.enabled and unit.is_on("Service", "PrivateNetwork")
        for text in unit.setting("Service", "ExecStart")
        for port in _PORT.findall(text)
    }


def told_idle(
    idle: Iterable[PortRange], sockets: observe.Sockets, alone: Mapping[int, str] = _NOBODY
) -> Iterator[str]:
    """Say each, and of which something listens on the loopback.

    :param alone: as :func:`cut_off` gives it.
    """
    for ports in idle:
        if ports.first > ports.last:
            yield f"{ports} (no port: it ends before it begins)"
        elif _only_inside(ports, sockets):
            yield f"{ports} (something listens there on the loopback only)"
        elif who := _alone(ports, alone):
            yield f"{ports} ({who} has a network of its own, PrivateNetwork=)"
        else:
            yield f"{ports}"


def remedy_of_idle(
    idle: Iterable[PortRange], sockets: observe.Sockets, alone: Mapping[int, str] = _NOBODY
) -> str:
    """Return what mends each of them.

    :param alone: as :func:`cut_off` gives it.
    """
    lines = []
    for ports in idle:
        if ports.first > ports.last:
            lines.append(f"# {ports}: write {{ from = {ports.last}; to = {ports.first}; }}.")
        elif _only_inside(ports, sockets):
            lines.append(
                f"# {ports}: have what listens on the loopback listen on an address that strangers reach, or close it."
            )
        elif who := _alone(ports, alone):
            stem = who.removesuffix(".service")
            lines.append(
                f'systemd.services."{stem}".serviceConfig.PrivateNetwork = lib.mkForce false;'
            )
        else:
            lines.append(f"# {ports}: have its service started and listen there, or close it.")
    return (
        "\n".join([*lines, f"# Ports are closed where they are opened: {_OPTIONS}."])
        if lines
        else ""
    )


def _only_inside(ports: PortRange, sockets: observe.Sockets) -> bool:
    return any(s.is_loopback and s.port in ports for s in sockets.listening(observe.Protocol.TCP))


def _alone(ports: PortRange, alone: Mapping[int, str]) -> str:
    return next((name for port, name in alone.items() if port in ports), "")
