"""Ports that a host opens and on which nothing listens that a stranger could reach, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytest_nixos import PortRange, observe

__all__ = ["remedy_of_idle", "told_idle"]

_OPTIONS = "networking.firewall (allowedTCPPorts, allowedTCPPortRanges, interfaces, openFirewall of its service)"


def told_idle(idle: Iterable[PortRange], sockets: observe.Sockets) -> Iterator[str]:
    """Say each, and of which something listens on the loopback."""
    for ports in idle:
        if ports.first > ports.last:
            yield f"{ports} (no port: it ends before it begins)"
        elif _only_inside(ports, sockets):
            yield f"{ports} (something listens there on the loopback only)"
        else:
            yield f"{ports}"


def remedy_of_idle(idle: Iterable[PortRange], sockets: observe.Sockets) -> str:
    """Return what mends each of them."""
    lines = []
    for ports in idle:
        if ports.first > ports.last:
            lines.append(f"# {ports}: write {{ from = {ports.last}; to = {ports.first}; }}.")
        elif _only_inside(ports, sockets):
            lines.append(
                f"# {ports}: have what listens on the loopback listen on an address that strangers reach, or close it."
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
