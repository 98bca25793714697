"""Ports that a host opens and on which nothing listens that a stranger could reach, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from pytest_nixos import HostConfig, PortRange, observe

__all__ = ["WhyIdle", "cut_off", "remedy_of_idle", "told_idle"]

_PORT = re.compile(r"(?<![\w.-])(?:\S*[:=])?(\d{2,5})(?![\w.-])")

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


@dataclass(frozen=True, slots=True)
class WhyIdle:
    """What is known of ports on which nothing listens that a stranger could reach.

    :param sockets: what listens.
    :param alone: port to service, as :func:`cut_off` gives it.
    :param servers: services that do not stay up, by the port that they name.
    """

    sockets: observe.Sockets
    alone: Mapping[int, str] = field(default_factory=dict)
    servers: Mapping[PortRange, tuple[str, ...]] = field(default_factory=dict)


def told_idle(idle: Iterable[PortRange], why: WhyIdle) -> Iterator[str]:
    """Say each, and what is known of it."""
    for ports in idle:
        if ports.first > ports.last:
            yield f"{ports} (no port: it ends before it begins)"
        elif down := why.servers.get(ports):
            yield f"{ports} ({', '.join(down)}, which should listen there, does not stay up)"
        elif _only_inside(ports, why.sockets):
            yield f"{ports} (something listens there on the loopback only)"
        elif who := _alone(ports, why.alone):
            yield f"{ports} ({who} has a network of its own, PrivateNetwork=)"
        else:
            yield f"{ports}"


def remedy_of_idle(idle: Iterable[PortRange], why: WhyIdle) -> str:
    """Return what mends each of them."""
    lines = []
    for ports in idle:
        if ports.first > ports.last:
            lines.append(f"# {ports}: write {{ from = {ports.last}; to = {ports.first}; }}.")
        elif down := why.servers.get(ports):
            lines += [
                f"# {ports}: {name} names it and does not stay up; journalctl -b -u {name} says why."
                for name in down
            ]
        elif _only_inside(ports, why.sockets):
            lines.append(
                f"# {ports}: have what listens on the loopback listen on an address that strangers reach, or close it."
            )
        elif who := _alone(ports, why.alone):
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
