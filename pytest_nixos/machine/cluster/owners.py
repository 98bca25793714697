"""Which member of a cluster a WireGuard peer is, decided from what the hosts declare, before
anything boots.

A peer is declared by a public key, whose private half nobody here knows. Who holds it follows from
what members say of each other: the peer's endpoint is a member's address or name, the addresses
that are reached through it are those of a member's interface, and that member declares a peer that
can be the asking one in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.cluster.plan import PlannedNetwork
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.tunnels import Tunnel, TunnelPeer

__all__ = ["End", "Link", "Owners", "Stranger", "find_owners", "member_addresses"]

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """A WireGuard interface of a member.

    :param host: by what the cluster calls it.
    """

    host: str
    tunnel: Tunnel

    @property
    def name(self) -> str:
        """What the user is told: ``wg0 of web``."""
        return f"{self.tunnel.name} of {self.host}"

    @property
    def holder(self) -> tuple[str, str]:
        """Whose key it has: interfaces of one host with one key file have one key."""
        return (self.host, self.tunnel.key_file or f"of {self.tunnel.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A peer that a member declares."""

    end: End
    peer: TunnelPeer


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A tunnel between two members, as one of them declares it.

    :param end: who declares it.
    :param peer: as it is declared there.
    :param other: who the peer is.
    """

    end: End
    peer: TunnelPeer
    other: End


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A peer that is no member.

    :param why: what speaks against a member that it might be, ``""`` where none comes near.
    """

    end: End
    peer: TunnelPeer
    why: str = ""

    @property
    def told(self) -> str:
        """One line for the user."""
        why = f": {self.why}" if self.why else ""
        return f"peer {self.peer.short} of {self.end.name} is no member of this cluster{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """Who all peers of a cluster's members are.

    :param links: both directions of each tunnel between members.
    """

    links: tuple[Link, ...]
    strangers: tuple[Stranger, ...]


def find_owners(
    hosts: Mapping[str, HostConfig], addresses: Mapping[str, frozenset[Address]]
) -> Owners:
    """Find out which member each declared peer is.

    :param hosts: by what the cluster calls them.
    :param addresses: of the members' network cards, see :func:`member_addresses`.
    :raises MachineError: if a peer may be one of several members, or two keys are declared for one
        interface.
    """
    return _Search(hosts, addresses).owners()


def member_addresses(
    hosts: Mapping[str, HostConfig], networks: Sequence[PlannedNetwork]
) -> Mapping[str, frozenset[Address]]:
    """Return the addresses that each host's cards and VLANs have, declared or leased."""
    leased = [(p.host, p.address.ip) for net in networks for p in net.places]
    return {
        name: frozenset(
            [
                *(address for owner, address in leased if owner == name),
                *(i.ip for card in host.cards for i in card.interfaces),
                *(i.ip for card in host.cards for vlan in card.vlans for i in vlan.interfaces),
            ]
        )
        for name, host in hosts.items()
    }


class _Search:
    def __init__(
        self, hosts: Mapping[str, HostConfig], addresses: Mapping[str, frozenset[Address]]
    ) -> None:
        self._hosts = hosts
        self._addresses = addresses
        self._ends = [End(host=n, tunnel=t) for n, host in hosts.items() for t in host.tunnels]
        self._claims = [_Claim(end=end, peer=p) for end in self._ends for p in end.tunnel.peers]
        self._by_key: dict[str, list[_Claim]] = {}
        for claim in self._claims:
            self._by_key.setdefault(claim.peer.public_key, []).append(claim)

    def owners(self) -> Owners:
        owned = self._assigned()
        links, strangers = [], []
        for claim in self._claims:
            others = [
                end
                for end in owned.get(claim.peer.public_key, ())
                if self._fits(claim, end) and self._answers(end, claim.end, owned)
            ]
            if others:
                links.append(Link(end=claim.end, peer=claim.peer, other=others[0]))
            else:
                why = self._why_not(claim)
                strangers.append(Stranger(end=claim.end, peer=claim.peer, why=why))
        return Owners(links=tuple(links), strangers=tuple(strangers))

    def _assigned(self) -> dict[str, list[End]]:
        """Return whose each key is: interfaces that share one key file share their key."""
        waiting = {key: self._candidates(key) for key in self._by_key}
        owned: dict[str, list[End]] = {}
        taken: dict[tuple[str, str], str] = {}
        while waiting:
            left = {
                key: [end for end in ends if end.holder not in taken]
                for key, ends in waiting.items()
            }
            sure = [key for key, ends in left.items() if len({end.holder for end in ends}) == 1]
            if not sure:
                break
            # Who is named by its own address or name goes first: others may be it by their network alone.
            key = min(sure, key=lambda key: not self._is_named(key, left[key][0]))
            owned[key] = left[key]
            taken[left[key][0].holder] = key
            del waiting[key]
        for key, ends in waiting.items():
            free = [end for end in ends if end.holder not in taken]
            if free:
                raise self._ambiguous(key, free)
            self._refuse_second_key(key, ends, taken)
        return owned

    def _candidates(self, key: str) -> list[End]:
        """Return the interfaces that a key may be of; those that are named outright where there are
        any.
        """
        known = [end for end in self._ends if end.tunnel.inline_public == key]
        fitting = known or [
            end
            for end in self._ends
            if not end.tunnel.inline_public
            and _has_key_file(end)
            # Nobody is the peer that it declares itself.
            and all(claim.end.host != end.host for claim in self._by_key[key])
            and any(
                self._fits(claim, end) and self._may_answer(end, claim.end)
                for claim in self._by_key[key]
            )
        ]
        named = [end for end in fitting if self._is_named(key, end)]
        return named or fitting

    def _fits(self, claim: _Claim, end: End) -> bool:
        """Whether what a claim says of its peer holds for an interface."""
        if end.host == claim.end.host:
            return False
        member = self._endpoint_member(claim.peer)
        if member is not None:
            asked, port = claim.peer.endpoint, end.tunnel.port
            is_port = asked is None or port is None or asked.port == port
            if member != end.host or not is_port:
                return False
        if end.tunnel.ips and claim.peer.allowed:
            return any(claim.peer.allows(address) for address in end.tunnel.ips)
        return member is not None

    def _may_answer(self, end: End, asker: End) -> bool:
        """Whether an interface has a peer that can be the asking one."""
        return any(
            self._fits(_Claim(end=end, peer=peer), asker)
            and asker.tunnel.inline_public in ("", peer.public_key)
            for peer in end.tunnel.peers
        )

    def _answers(self, end: End, asker: End, owned: Mapping[str, Sequence[End]]) -> bool:
        """Whether an interface has a peer that is the asking one."""
        return any(asker in owned.get(peer.public_key, ()) for peer in end.tunnel.peers)

    def _is_named(self, key: str, end: End) -> bool:
        """Whether a claim names this interface by its endpoint or by an address of its own."""
        return any(
            self._endpoint_member(claim.peer) == end.host
            or any(allowed.ip in end.tunnel.ips for allowed in claim.peer.allowed)
            for claim in self._by_key[key]
        )

    def _endpoint_member(self, peer: TunnelPeer) -> str | None:
        """Return the member that a peer's endpoint is; ``None`` where it is none, or a name that
        only the world outside knows.
        """
        endpoint = peer.endpoint
        if endpoint is None:
            return None
        asked = {endpoint.address, *peer.found} - {None}
        for name, addresses in self._addresses.items():
            if asked & addresses:
                return name
        called = [n for n, host in self._hosts.items() if endpoint.host in (n, host.host_name)]
        return called[0] if len(called) == 1 and not asked else None

    def _why_not(self, claim: _Claim) -> str:
        """Tell what keeps a claim from being a member that comes near."""
        key = claim.peer.public_key
        near = [end for end in self._ends if self._fits(claim, end) and self._is_near(claim, end)]
        for end in near:
            inline = end.tunnel.inline_public
            if inline and inline != key:
                return f"{end.name} is at its address, and that one's own key is {inline[:8]}…"
            if not _has_key_file(end):
                source = end.tunnel.config_file or "a place that its options do not name"
                return f"{end.name} may be it, but takes its key from {source}"
            if not self._may_answer(end, claim.end):
                return f"{end.name} is at its address, and has no peer that is {claim.end.name}"
        return ""

    def _is_near(self, claim: _Claim, end: End) -> bool:
        by_address = any(allowed.ip in end.tunnel.ips for allowed in claim.peer.allowed)
        return by_address or self._endpoint_member(claim.peer) == end.host

    def _ambiguous(self, key: str, ends: Sequence[End]) -> MachineError:
        claim = self._by_key[key][0]
        names = " or ".join(dict.fromkeys(end.name for end in ends))
        return MachineError(
            f"{claim.end.host}: peer {claim.peer.short} of {claim.end.tunnel.name} may be {names}",
            remedy="give that peer the address or name of its host as endpoint, or the tunnel"
            ' address of its host alone in allowedIPs ("10.100.0.2/32")',
        )

    def _refuse_second_key(
        self, key: str, ends: Sequence[End], taken: Mapping[tuple[str, str], str]
    ) -> None:
        for end in ends:
            other = taken.get(end.holder)
            if other is None or not (self._is_named(key, end) and self._is_named(other, end)):
                continue
            ours, theirs = self._by_key[key][0], self._by_key[other][0]
            raise MachineError(
                f"{end.host}: one interface has one key, and {end.tunnel.name} is {theirs.peer.short}"
                f" for {theirs.end.name} and {ours.peer.short} for {ours.end.name}",
                remedy=f"declare the public key of {end.name} (`wg show {end.tunnel.name} public-key`)"
                " for both",
            )


def _has_key_file(end: End) -> bool:
    """Whether its private key comes from where the run can put one."""
    tunnel = end.tunnel
    if tunnel.config_file:
        return False
    return tunnel.has_inline_key or tunnel.key_file.startswith("/")
