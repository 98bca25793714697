"""Arithmetic on port ranges, and what a host declares for one interface."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_nixos import Firewall, PortRange

__all__ = ["FAMILIES", "UDP_PROTOCOLS", "covers", "declared_ranges", "listed", "without"]

#: Families of addresses as rules name them, in words.
FAMILIES = {"ip": "IPv4", "ip6": "IPv6"}
#: IANA numbers of UDP and UDP-Lite, whose ports a host declares together.
UDP_PROTOCOLS = (17, 136)


def declared_ranges(firewall: Firewall, protocol: str, interface: str) -> list[PortRange]:
    """Return what the host declares open on `interface`, declarations for all interfaces
    included.
    """
    ports = [firewall.everywhere]
    if interface in firewall.interfaces:
        ports.append(firewall.interfaces[interface])
    return [r for p in ports for r in (p.tcp if protocol == "tcp" else p.udp)]


def without(ranges: Iterable[PortRange], removed: Iterable[PortRange]) -> list[PortRange]:
    """Return what is left of `ranges` when every port of `removed` is taken out."""
    left = list(ranges)
    for hole in removed:
        left = [piece for whole in left for piece in _cut(whole, hole)]
    return sorted(left)


def covers(ranges: Sequence[PortRange], port: int) -> bool:
    """Whether `port` lies in one of `ranges`."""
    return any(port in r for r in ranges)


def listed(ranges: Iterable[PortRange]) -> list[str]:
    """Write ranges for people."""
    return [str(r) for r in ranges]


def _cut(whole: PortRange, hole: PortRange) -> list[PortRange]:
    if hole.last < whole.first or hole.first > whole.last:
        return [whole]
    pieces = []
    if whole.first < hole.first:
        pieces.append(PortRange(first=whole.first, last=hole.first - 1))
    if whole.last > hole.last:
        pieces.append(PortRange(first=hole.last + 1, last=whole.last))
    return pieces
