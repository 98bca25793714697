"""What a host gives systemd-networkd, held against the links that are there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from ipaddress import ip_address, ip_interface
from typing import Any

import msgspec

__all__ = ["Link", "Wrong", "gateways_apart", "misnamed", "read_links", "read_netdevs", "unmade"]

Json = Any
_NAME = re.compile(r"[\w.-]+")
_SETTING = re.compile(r"^.*/(?P<file>[^/:]+)\.netdev:(?P<key>\w+)=(?P<value>.*)$", re.MULTILINE)
# Below it two names are of two links.
_ALIKE = 0.75


class Link(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A link as ``networkctl --json=short list`` tells it.

    :param kind: ``vlan``, ``bridge``, ...; ``""`` for a card.
    :param administrative_state: ``configured``, ``configuring``, ``failed``, ``unmanaged``, ...
    :param network_file: what it is configured by.
    """

    name: str
    kind: str | None = ""
    administrative_state: str = ""
    carrier_state: str = ""
    network_file: str | None = ""

    @property
    def waits(self) -> bool:
        """Whether it is not configured though there is somebody at its other end."""
        return self.administrative_state == "configuring" and self.carrier_state == "carrier"


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    """Something that networkd cannot do as it is given.

    :param mend: option text.
    """

    what: str
    mend: str


class _Links(msgspec.Struct, frozen=True, rename="pascal"):
    interfaces: tuple[Link, ...] = ()


def read_links(text: str) -> Sequence[Link] | None:
    """Read what networkctl printed; ``None`` where it is no answer."""
    try:
        return msgspec.json.decode(text, type=_Links).interfaces
    except msgspec.DecodeError:
        return None


def gateways_apart(networks: Mapping[str, Json], links: Sequence[Link]) -> Iterator[Wrong]:
    """Give each gateway that lies in no network of its link, which waits for it for ever."""
    waiting = {link.name for link in links if link.waits or link.administrative_state == "failed"}
    for file, network in _enabled(networks):
        if not waiting & set(_names(network)) or _asks_for_addresses(network):
            continue
        own = [ip_interface(text) for text in _addresses(network)]
        for text in _gateways(network):
            gateway = ip_address(text)
            same = [a for a in own if a.version == gateway.version]
            if gateway.is_link_local or not same or any(gateway in a.network for a in same):
                continue
            name = ", ".join(sorted(waiting & set(_names(network))))
            told = ", ".join(map(str, same))
            yield Wrong(
                what=f"{name} waits for its gateway {text}, which is in none of its networks ({told})",
                mend=f'# systemd.network.networks."{file}": correct the gateway {text} or the prefix of {told}; '
                "where it is on the link all the same, its route says GatewayOnLink = true.",
            )


def misnamed(networks: Mapping[str, Json], links: Sequence[Link]) -> Iterator[Wrong]:
    """Give each network of a name that no link has while nothing configures one that is called
    nearly so.
    """
    there = {link.name for link in links}
    free = [
        link.name
        for link in links
        if link.name != "lo" and link.administrative_state in ("unmanaged", "pending")
    ]
    for file, network in _enabled(networks):
        names = _names(network)
        if not names or there & set(names):
            continue
        for name in names:
            for meant in get_close_matches(name, free, n=1, cutoff=_ALIKE):
                yield Wrong(
                    what=f"{file} is of {name}, which is not there; {meant} is, and nothing configures it",
                    mend=f'systemd.network.networks."{file}".matchConfig.Name = "{meant}";',
                )


def unmade(
    netdevs: Mapping[str, Mapping[str, str]], networks: Mapping[str, Json], there: Collection[str]
) -> Iterator[Wrong]:
    """Give each VLAN that is not there since no network names it: a VLAN is made for the link that
    does.

    :param netdevs: ``Name`` and ``Kind`` by file.
    """
    named = {
        word
        for _, network in _enabled(networks)
        for word in (*_words(network, "vlan"), *_words(network, "networkConfig", "VLAN"))
    }
    texts = [str(network.get("extraConfig", "")) for _, network in _enabled(networks)]
    for file, netdev in netdevs.items():
        name = netdev.get("Name", "")
        if netdev.get("Kind") != "vlan" or not name or name in there or name in named:
            continue
        if not any(name in text for text in texts):
            yield Wrong(
                what=f"{file} makes no {name}: no network has it among its VLANs",
                mend=f'# In the network of the card that carries it: systemd.network.networks."...".vlan = [ "{name}" ];',
            )


def read_netdevs(text: str) -> Mapping[str, Mapping[str, str]]:
    """Read ``grep -H`` of ``Name=`` and ``Kind=`` in files of devices."""
    found: dict[str, dict[str, str]] = {}
    for match in _SETTING.finditer(text):
        found.setdefault(match["file"], {}).setdefault(match["key"], match["value"].strip())
    return found


def _enabled(given: Mapping[str, Json]) -> Iterator[tuple[str, Mapping[str, Json]]]:
    for file, settings in given.items():
        if isinstance(settings, dict) and settings.get("enable", True):
            yield file, settings


def _names(network: Mapping[str, Json]) -> list[str]:
    """Return the names that it is of, none where a pattern may mean others too."""
    names = _words(network, "matchConfig", "Name")
    return names if all(_NAME.fullmatch(name) for name in names) else []


def _asks_for_addresses(network: Mapping[str, Json]) -> bool:
    asked = {*_words(network, "DHCP"), *_words(network, "networkConfig", "DHCP")}
    return bool(asked - {"no", "false", "False", "ipv6"})


def _addresses(network: Mapping[str, Json]) -> list[str]:
    texts = [*_words(network, "address"), *_words(network, "networkConfig", "Address")]
    texts += _parts(network, "addresses", "addressConfig", "Address")
    return [text for text in texts if _reads(ip_interface, text)]


def _gateways(network: Mapping[str, Json]) -> list[str]:
    texts = [*_words(network, "gateway"), *_words(network, "networkConfig", "Gateway")]
    texts += _parts(network, "routes", "routeConfig", "Gateway", unless="GatewayOnLink")
    return [text for text in texts if _reads(ip_address, text)]


def _parts(
    network: Mapping[str, Json], key: str, old: str, name: str, unless: str = ""
) -> list[str]:
    """Read a setting of sections that are a list; up to 24.05 each is in a set of its own."""
    found = []
    for section in network.get(key) or ():
        values = {**section, **(section.get(old) or {})} if isinstance(section, dict) else {}
        if not values.get(unless):
            found += _words(values, name)
    return found


def _words(settings: Mapping[str, Json], *path: str) -> list[str]:
    value: Json = settings
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        return []
    return [w for one in (value if isinstance(value, list) else [value]) for w in str(one).split()]


def _reads(reader: Any, text: str) -> bool:
    try:
        reader(text)
    except ValueError:
        return False
    return True
