"""What the rules stand in: interfaces and who holds them, routes by table, and the rules that say
which table is asked (ip-rule(8)).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from pytest_nixos.observe.firewall.model import Rule
from pytest_nixos.observe.firewall.spans import Spans

__all__ = [
    "LOCAL_TABLE",
    "MAIN_TABLE",
    "PLAIN_POLICY",
    "Fate",
    "Interface",
    "Lookup",
    "Policy",
    "Route",
    "Surroundings",
]

LOCAL_TABLE, MAIN_TABLE, _DEFAULT_TABLE = "local", "main", "default"
_MOST_ADDRESSES = 256
# Masters whose ports' packets come in as the master's own.
_TRANSPARENT = frozenset({"bridge", "bond", "team"})
# Hardware, and the end of a container's link.
_CARDS = frozenset({"", "veth"})
# What a tunnel is, as ``ip -details`` names it: who sends by it is known.
_TUNNELS = frozenset({"wireguard", "tun", "ipip", "sit", "gre", "ip6gre", "ip6tnl", "vti", "xfrm"})


class Fate(enum.Enum):
    """Where a route leads."""

    LOCAL = "to the guest itself"
    AWAY = "by an interface"
    REFUSED = "nowhere: blackhole, unreachable or prohibit"
    NO_ROUTE = "the table has none"
    UNKNOWN = "it differs among the addresses"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """An interface of the guest.

    :param addresses: its own addresses, as (family, number).
    :param broadcasts: the IPv4 broadcast addresses of its networks.
    :param master: the bridge, bond, ... whose port it is, ``""`` for none.
    :param master_kind: ``bridge``, ``bond``, ``vrf``, ...; ``""`` also where the guest does not say.
    :param device_kind: what it is itself, likewise; ``""`` for hardware.
    """

    name: str
    addresses: tuple[tuple[int, int], ...] = ()
    kind: str = ""
    broadcasts: tuple[int, ...] = ()
    master: str = ""
    master_kind: str = ""
    device_kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route: destinations to where they go.

    :param interface: ``""`` where several lead there.
    :param table: its routing table.
    """

    family: int
    destinations: Spans
    length: int
    interface: str
    table: str = MAIN_TABLE
    fate: Fate = Fate.AWAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One rule of policy routing.

    :param rule: its conditions, in the packet filter's language, and its text.
    :param table: the table that is asked, ``""`` where none is.
    :param fate: what becomes of packets where no table is asked; ``UNKNOWN`` for what we do not
        know to do.
    """

    family: int
    rule: Rule
    table: str = ""
    fate: Fate = Fate.AWAY


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a table says of a destination."""

    fate: Fate
    interface: str = ""


def _plain(family: int) -> tuple[Policy, ...]:
    return tuple(
        Policy(
            family=family,
            rule=Rule(table="", chain="", text=f"ip rule: from all lookup {table}", steps=()),
            table=table,
        )
        for table in (LOCAL_TABLE, MAIN_TABLE, _DEFAULT_TABLE)
    )


#: The rules that every kernel begins with.
PLAIN_POLICY = {family: _plain(family) for family in (4, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the rules stand in: interfaces, routes, and whether packets are forwarded.

    :param is_known: whether the guest told; where not, nothing follows from what is missing.
    :param forwards: families whose packets are forwarded.
    :param policies: rules of policy routing in their order; empty where they are the plain ones.
    :param checks_senders: whether the kernel itself refuses forged senders of IPv4 (``rp_filter``).
    """

    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    forwards: tuple[int, ...] = ()
    is_known: bool = False
    policies: tuple[Policy, ...] = field(default=())
    checks_senders: bool = False

    def policy(self, family: int) -> Sequence[Policy]:
        """Return the rules that choose among the routing tables."""
        own = [p for p in self.policies if p.family == family]
        return own or PLAIN_POLICY[family]

    def has_plain_policy(self, family: int) -> bool:
        """Whether only the kernel's first rules choose among the tables."""
        return not any(p.family == family for p in self.policies)

    def interface(self, name: str) -> Interface | None:
        """Return the interface of that name, ``None`` if the guest has none."""
        return next((i for i in self.interfaces if i.name == name), None)

    def way_in(self, name: str) -> Sequence[Interface]:
        """Return the interfaces that a packet comes in by, one after the other: a port, its bond,
        the bridge whose port that is.

        The last is the one that IP sees; a VRF (or another master that we do not know) is not
        among them.
        """
        found = self.interface(name) or Interface(name=name)
        way = [found]
        while found.master and found.master_kind in _TRANSPARENT and len(way) < 8:
            found = self.interface(found.master) or Interface(name=found.master)
            way.append(found)
        return way

    def ways_out(self, family: int) -> Sequence[str]:
        """Return the interfaces behind which all others are: of default routes, tunnels left out;
        where nothing leads to others, as in a network of the machine's own, its cards.
        """
        tunnels = {i.name for i in self.interfaces if i.device_kind in _TUNNELS}
        found = {
            route.interface
            for route in self.routes
            if route.family == family and route.length == 0 and route.fate is Fate.AWAY
        }
        cards = {i.name for i in self.interfaces if i.device_kind in _CARDS and i.name != "lo"}
        return sorted((found or cards) - tunnels - {""})

    def own_addresses(self, family: int) -> Sequence[int]:
        """Return the guest's addresses, those of loopback left out."""
        return [n for i in self.interfaces if i.name != "lo" for f, n in i.addresses if f == family]

    def broadcast_addresses(self) -> Sequence[int]:
        """Return the broadcast addresses of the guest's IPv4 networks."""
        return sorted({n for i in self.interfaces for n in i.broadcasts})

    def is_own(self, family: int, address: int) -> bool:
        """Whether a packet to `address` is for the guest itself."""
        loopback = address >> 24 == 127 if family == 4 else address == 1
        return loopback or any((family, address) in i.addresses for i in self.interfaces)

    def look_up(self, family: int, table: str, addresses: Spans) -> Lookup:
        """Tell where a table sends packets to `addresses`; ``UNKNOWN`` if not all go one way."""
        if sum(last - first + 1 for first, last in addresses) > _MOST_ADDRESSES:
            return Lookup(Fate.UNKNOWN)
        found = {
            self._one(family, table, address)
            for first, last in addresses
            for address in range(first, last + 1)
        }
        return found.pop() if len(found) == 1 else Lookup(Fate.UNKNOWN)

    def _one(self, family: int, table: str, address: int) -> Lookup:
        if table == LOCAL_TABLE and self.is_own(family, address):
            return Lookup(Fate.LOCAL)
        fitting = [
            route
            for route in self.routes
            if route.family == family
            and route.table == table
            and any(first <= address <= last for first, last in route.destinations)
        ]
        best = max(fitting, key=lambda route: route.length, default=None)
        return Lookup(best.fate, best.interface) if best else Lookup(Fate.NO_ROUTE)
