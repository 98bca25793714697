"""Ports that a host opens and on which nothing listens that a stranger could reach, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pytest_nixos import HostConfig, PortRange, Unit, observe

__all__ = ["CutOff", "WhyIdle", "cut_off", "refused_by_unit", "remedy_of_idle", "told_idle"]

_PORT = re.compile(r"(?<![\w.-])(?:\S*[:=])?(\d{2,5})(?![\w.-])")
# systemd.resource-control(5): what IPAddressDeny= and IPAddressAllow= hold for everybody and for the machine.
_EVERYBODY = frozenset({"any", "0.0.0.0/0"})
_ITSELF = re.compile(r"localhost|127\.[\d.]+(?:/\d+)?|::1(?:/128)?|\[::1\]")


class CutOff(NamedTuple):
    """A service that no stranger reaches by a port that its command names.

    :param key: the directive that cuts it off.
    """

    unit: str
    key: str

    def __str__(self) -> str:
        if self.key == "PrivateNetwork":
            return f"{self.unit} has a network of its own, {self.key}="
        return f"{self.unit} takes packets of its own machine only, {self.key}="

    @property
    def remedy(self) -> str:
        """Module text that lets strangers reach it."""
        config = f'systemd.services."{self.unit.removesuffix(".service")}".serviceConfig'
        if self.key == "PrivateNetwork":
            return f"{config}.{self.key} = lib.mkForce false;"
        return (
            '# The networks of those who may come, or "any":\n'
            f'{config}.IPAddressAllow = lib.mkForce [ "localhost" "192.0.2.0/24" ];'
        )


_OPTIONS = "networking.firewall (allowedTCPPorts, allowedTCPPortRanges, interfaces, openFirewall of its service)"


def cut_off(host: HostConfig) -> Mapping[int, CutOff]:
    """Return port to the service whose command names it and that has a network of its own, or takes packets of
    its own machine only: nobody else reaches it.
    """
    return {
        int(port): CutOff(name, key)
        for name, unit in host.units.items()
        if unit.enabled and (key := _cut_off_by(unit))
        for text in unit.setting("Service", "ExecStart")
        for port in _PORT.findall(text)
    }


def refused_by_unit(
    ranges: Iterable[PortRange], alone: Mapping[int, CutOff]
) -> Iterator[PortRange]:
    """Yield the open ports whose service refuses every stranger, though it listens.

    :param alone: as :func:`cut_off` gives it.
    """
    for port, who in sorted(alone.items()):
        if who.key == "IPAddressDeny" and any(r.first == r.last == port for r in ranges):
            yield PortRange(first=port, last=port)


@dataclass(frozen=True, slots=True)
class WhyIdle:
    """What is known of ports on which nothing listens that a stranger could reach.

    :param sockets: what listens.
    :param alone: port to service, as :func:`cut_off` gives it.
    :param servers: services that do not stay up, by the port that they name.
    """

    sockets: observe.Sockets
    alone: Mapping[int, CutOff] = field(default_factory=dict)
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
            yield f"{ports} ({who})"
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
            lines.append(who.remedy)
        else:
            lines.append(f"# {ports}: have its service started and listen there, or close it.")
    return (
        "\n".join([*lines, f"# Ports are closed where they are opened: {_OPTIONS}."])
        if lines
        else ""
    )


def _only_inside(ports: PortRange, sockets: observe.Sockets) -> bool:
    return any(s.is_loopback and s.port in ports for s in sockets.listening(observe.Protocol.TCP))


def _alone(ports: PortRange, alone: Mapping[int, CutOff]) -> CutOff | None:
    return next((who for port, who in alone.items() if port in ports), None)


def _cut_off_by(unit: Unit) -> str:
    """Return the directive by which no stranger reaches a service, ``""`` for none."""
    if unit.is_on("Service", "PrivateNetwork"):
        return "PrivateNetwork"
    denied = set(unit.words("Service", "IPAddressDeny"))
    allowed = unit.words("Service", "IPAddressAllow")
    if denied & _EVERYBODY and all(_ITSELF.fullmatch(word) for word in allowed):
        return "IPAddressDeny"
    return ""
