"""Network cards as a host's config speaks of them, see ``expressions/cards.nix``."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any, Self

import msgspec

__all__ = ["Card", "Interface", "Vlan"]

Json = Any
Interface = IPv4Interface | IPv6Interface


class Vlan(msgspec.Struct, frozen=True, kw_only=True):
    """A VLAN of a card (IEEE 802.1Q).

    :param id: its number.
    :param addresses: with their prefix lengths.
    """

    name: str
    id: int
    addresses: tuple[str, ...]

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Its addresses as values."""
        return tuple(ip_interface(text) for text in self.addresses)


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A network card.

    :param name: ``""`` where the host knows it by its hardware address, or speaks of none.
    :param hardware: its Ethernet address, as ``52:54:00:12:34:56``.
    :param addresses: that the host declares for it, with their prefix lengths.
    """

    name: str
    hardware: str
    addresses: tuple[str, ...] = ()
    vlans: tuple[Vlan, ...] = ()

    @classmethod
    def parse(cls, document: Mapping[str, Json]) -> Self:
        """Read a card of a host's document."""
        return cls(
            name=document["name"],
            hardware=document["hardware"],
            addresses=_addresses(document["addresses"]),
            vlans=tuple(
                Vlan(name=vlan["name"], id=vlan["id"], addresses=_addresses(vlan["addresses"]))
                for vlan in document["vlans"]
            ),
        )

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Its declared addresses as values."""
        return tuple(ip_interface(text) for text in self.addresses)

    @property
    def v4(self) -> tuple[IPv4Interface, ...]:
        """Its declared IPv4 addresses."""
        return tuple(a for a in self.interfaces if isinstance(a, IPv4Interface))


def _addresses(texts: list[str]) -> tuple[str, ...]:
    """Leave out what is no address (``%i``, an empty word): that is for the host's own tools."""
    return tuple(text for text in texts if _is_address(text))


def _is_address(text: str) -> bool:
    try:
        ip_interface(text)
    except ValueError:
        return False
    return True
