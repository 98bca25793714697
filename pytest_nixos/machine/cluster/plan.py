"""Which card of which host belongs to which network, decided from what the hosts declare, before
anything boots.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface

from pytest_nixos.errors import MachineError
from pytest_nixos.nix.config.cards import Card
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["Place", "PlannedNetwork", "plan_networks"]

# Given where nobody declares any.
_OWN = IPv4Network("10.233.0.0/24")
_OWN_NAME = "network"
_SMALLEST = 30  # prefix length of a network with room for a stranger


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A card's place on a network.

    :param host: the cluster's name of the host.
    :param number: of the card among the host's.
    :param address: by which others call it: declared, or leased by the network.
    :param is_leased: whether the network gives the address, by DHCP.
    """

    host: str
    number: int
    card: Card
    address: IPv4Interface
    is_leased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedNetwork:
    """A network and who is on it.

    :param name: its subnet as the hosts declare it, or a word where they declare none.
    :param outside: address of the network's own voice, and of strangers.
    """

    name: str
    outside: IPv4Interface
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """An address that a host declares.

    :param vlan: number of the VLAN, 0 for frames without a tag.
    """

    host: str
    where: str
    vlan: int
    address: IPv4Interface | IPv6Interface


def plan_networks(hosts: Mapping[str, HostConfig]) -> tuple[PlannedNetwork, ...]:
    """Put the cards of hosts on networks: cards whose addresses lie in the same subnet share one;
    those without an address are on the first.

    :param hosts: by what the cluster calls them.
    :raises MachineError: if two hosts declare one address, address one network differently, have
        the same hardware address, or one puts a VLAN on no card.
    """
    _refuse_orphans(hosts)
    _refuse_twice(hosts)
    _refuse_differences([c for name, host in hosts.items() for c in _claims(name, host)])
    members: dict[str, list[tuple[str, int, Card]]] = {}
    without = []
    for host, config in hosts.items():
        for number, card in enumerate(config.cards):
            subnet = _subnet(card)
            if subnet is None:
                without.append((host, number, card))
            else:
                members.setdefault(str(subnet), []).append((host, number, card))
    first = next(iter(members), _OWN_NAME)
    for entry in without:
        members.setdefault(first, []).append(entry)
    return tuple(_network(name, cards) for name, cards in members.items())


def _network(name: str, cards: Sequence[tuple[str, int, Card]]) -> PlannedNetwork:
    declared = [_subnet(card) for _, _, card in cards]
    subnet = next((net for net in declared if net is not None), _OWN)
    taken = {a.ip for _, _, card in cards for a in card.v4}
    free = (ip for ip in subnet.hosts() if ip not in taken)
    outside = _next(free, name)
    places = []
    for host, number, card in cards:
        own = next((a for a in card.v4 if a.network == subnet), None)
        address = own or IPv4Interface((_next(free, name), subnet.prefixlen))
        places.append(
            Place(host=host, number=number, card=card, address=address, is_leased=own is None)
        )
    return PlannedNetwork(
        name=name,
        outside=IPv4Interface((outside, subnet.prefixlen)),
        places=tuple(places),
    )


def _next(free: Iterator[IPv4Address], name: str) -> IPv4Address:
    found = next(free, None)
    if found is None:
        raise MachineError(
            f"network {name}: no address is left for all who need one",
            remedy="declare a larger network, or addresses for all cards on it",
        )
    return found


def _subnet(card: Card) -> IPv4Network | None:
    return next((a.network for a in card.v4 if a.network.prefixlen <= _SMALLEST), None)


def _claims(name: str, host: HostConfig) -> Iterator[_Claim]:
    for card in host.cards:
        for address in card.interfaces:
            yield _Claim(host=name, where=card.name, vlan=0, address=address)
        for vlan in card.vlans:
            for address in vlan.interfaces:
                yield _Claim(host=name, where=vlan.name, vlan=vlan.id, address=address)


def _refuse_orphans(hosts: Mapping[str, HostConfig]) -> None:
    for name, host in hosts.items():
        if host.orphan_vlans:
            raise MachineError(
                f"{name}: VLAN {host.orphan_vlans[0]} is on no network card",
                remedy="name its card: networking.vlans.NAME.interface, or `vlan` of a network of systemd.network.networks",
            )


def _refuse_twice(hosts: Mapping[str, HostConfig]) -> None:
    owners: dict[str, str] = {}
    for name, host in hosts.items():
        for card in host.cards:
            label = card.name or "its card"
            other = owners.setdefault(card.hardware, f"{label} of {name}")
            if other != f"{label} of {name}":
                raise MachineError(
                    f"{name}: {label} has the hardware address {card.hardware}, and so has {other}",
                    remedy="match each card by the address of its own (matchConfig.MACAddress)",
                )


def _refuse_differences(claims: Sequence[_Claim]) -> None:
    seen: list[_Claim] = []
    for claim in claims:
        for other in seen:
            if claim.address.is_link_local or claim.vlan != other.vlan:
                continue
            if claim.address.version != other.address.version:
                continue
            if claim.host != other.host and claim.address.ip == other.address.ip:
                raise MachineError(
                    f"{claim.host}: declares {claim.address.ip} for {claim.where}, and so does "
                    f"{other.host} for {other.where}",
                    remedy="give each host an address of its own",
                )
            if _overlap(claim, other) and claim.address.network != other.address.network:
                raise MachineError(
                    f"{claim.host}: {claim.where} is on {claim.address.network}, and {other.host} "
                    f"addresses the same network as {other.address.network}",
                    remedy="give both the same prefix length",
                )
        seen.append(claim)


def _overlap(claim: _Claim, other: _Claim) -> bool:
    """Whether two addresses are of one network; one of a single address is nobody's network."""
    networks = (claim.address.network, other.address.network)
    if claim.host == other.host or any(net.num_addresses < 4 for net in networks):
        return False
    ours, theirs = networks
    return claim.address.ip in theirs or other.address.ip in ours


def addresses_by_host(networks: Sequence[PlannedNetwork]) -> Mapping[str, IPv4Address]:
    """Return by which address others call each host: that of its first card."""
    found: dict[str, tuple[int, IPv4Address]] = {}
    for network in networks:
        for place in network.places:
            entry = (place.number, place.address.ip)
            found[place.host] = min(found.get(place.host, entry), entry)
    return {host: address for host, (_, address) in found.items()}
