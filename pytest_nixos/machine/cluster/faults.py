"""Trouble between the members of a cluster: each a context manager that undoes itself, to be
combined freely.

    with cluster.faults.partition(["a"], ["b", "c"]), cluster.faults.delay(0.2, source="b"):
        ...

The frames themselves are lost, late or changed on their way, in the network's switch; of the
machines only a cable is pulled or a clock set. Each yields a :class:`NetworkFault`, which tells how many frames it has met.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from pytest_nixos.errors import BrokenMachineError, FaultError
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.capabilities import Pluggable
from pytest_nixos.machine.cluster.impairment import Impairment, Rule
from pytest_nixos.machine.cluster.network import ClusterNetwork
from pytest_nixos.machine.cluster.tampering import Address
from pytest_nixos.machine.faults.faults import Faults
from pytest_nixos.machine.network.advertise import link_local

__all__ = ["NetworkFault", "NetworkFaults"]

_SEEN_S = 1.0
_HEALED_S = 20.0
_JOIN_S = 10.0

#: One member, several, or all (``None``).
Members = str | Collection[str] | None


@dataclass(frozen=True, slots=True)
class NetworkFault:
    """Trouble at work."""

    rules: tuple[Rule, ...]

    @property
    def met(self) -> int:
        """Frames that were on the way where it is at work."""
        return sum(rule.met for rule in self.rules)

    @property
    def touched(self) -> int:
        """Frames that it lost, held up, changed or sent twice."""
        return sum(rule.touched for rule in self.rules)


class NetworkFaults:
    """Trouble between members.

    :param reaches: whether one member has an answer of another within some seconds.
    """

    def __init__(
        self,
        machines: Mapping[str, Machine],
        networks: Sequence[ClusterNetwork],
        *,
        reaches: Callable[[str, str, float], bool],
    ) -> None:
        self._machines = machines
        self._networks = networks
        self._reaches = reaches

    @contextlib.contextmanager
    def partition(self, *sides: Collection[str]) -> Iterator[NetworkFault]:
        """Cut the cluster into sides that do not hear of each other; strangers reach all.

        It is seen to hold, and to have healed afterwards.

        :param sides: names of members; those in none are together on one more.
        :raises FaultError: if a member is on two sides, or there is only one side.
        :raises BrokenMachineError: if they do not reach each other again.
        """
        parts = self._sides(sides)
        rules = [
            (Impairment(loss=1), side, [n for other in parts if other is not side for n in other])
            for side in parts
        ]
        pairs = [
            (here, there)
            for side, other in itertools.combinations(parts, 2)
            for here, there in itertools.product(side, other)
        ]
        connected = [pair for pair in pairs if self._reaches(*pair, _SEEN_S)]
        with self._at_work(*rules) as fault:
            held = [pair for pair in connected if not self._reaches(*pair, _SEEN_S)]
            if held != connected:
                raise FaultError(
                    "the partition does not hold: "
                    + ", ".join(f"{a} reaches {b}" for a, b in connected if (a, b) not in held),
                    remedy="report this as a defect of pytest-nixos",
                )
            yield fault
        for here, there in connected:
            if not self._reaches(here, there, _HEALED_S):
                raise BrokenMachineError(
                    f"{here} does not reach {there} again, {_HEALED_S:g} s after the partition",
                    remedy="look whether both machines still have their addresses",
                )

    def loss(
        self, share: float, *, source: Members = None, target: Members = None
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        """Lose a share of the frames from `source` to `target`; with 1 and one of both it is a
        link that works in one direction.
        """
        return self._between(Impairment(loss=share), source, target)

    def delay(
        self,
        delay_s: float,
        *,
        jitter_s: float = 0.0,
        source: Members = None,
        target: Members = None,
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        """Hold frames up, each by `delay_s` and at most `jitter_s` more or less."""
        return self._between(Impairment(delay_s=delay_s, jitter_s=jitter_s), source, target)

    def duplication(
        self, share: float, *, source: Members = None, target: Members = None
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        """Send a share of the frames twice."""
        return self._between(Impairment(duplication=share), source, target)

    def reordering(
        self,
        share: float,
        *,
        within_s: float = 0.2,
        source: Members = None,
        target: Members = None,
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        """Have a share of the frames overtaken by those of the next `within_s` seconds."""
        return self._between(Impairment(reordering=share, reorder_s=within_s), source, target)

    def corruption(
        self, share: float, *, source: Members = None, target: Members = None
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        """Turn one bit in a share of the frames, behind their Ethernet header."""
        return self._between(Impairment(corruption=share), source, target)

    def bandwidth(
        self, kbit_s: float, *, source: Members = None, target: Members = None
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        """Let so many kbit/s pass, over all the links that are meant; what would wait for longer
        than a second is lost.
        """
        return self._between(Impairment(kbit_s=kbit_s), source, target)

    def mtu_black_hole(
        self, longest_packet: int, *, source: Members = None, target: Members = None
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        """Lose packets of more than so many bytes, and tell nobody."""
        return self._between(Impairment(longest_packet=longest_packet), source, target)

    def dead_gateway(self, name: str) -> contextlib.AbstractContextManager[NetworkFault]:
        """Have a member pass nothing on, while it answers for itself: packets that reach it and are
        for others vanish.

        :param name: of a member, whose addresses are those that it declares or has been given.
        """
        host = self._machine(name).spec.host
        own: set[Address] = {
            place.address.ip for n in self._networks for place in n.places_of(name)
        }
        for card in host.cards:
            own |= {address.ip for vlan in card.vlans for address in vlan.interfaces}
            own |= {address.ip for address in card.interfaces}
            own.add(link_local(bytes.fromhex(card.hardware.replace(":", ""))))
        return self._between(Impairment(loss=1, own_addresses=frozenset(own)), None, name)

    def wrong_dns(
        self, address: str = "192.0.2.1", *, source: Members = None, target: Members = None
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        """Have name servers' answers (UDP) name another IPv4 address, and no IPv6 one.

        :param address: by default one that nobody has (RFC 5737).
        :param source: members that are name servers, or through which answers come.
        :raises FaultError: if that is no IPv4 address.
        """
        try:
            wrong = IPv4Address(address)
        except ValueError as err:
            raise FaultError(
                f"wrong_dns {address!r}: no IPv4 address", remedy='give one, such as "192.0.2.1"'
            ) from err
        return self._between(Impairment(wrong_address=wrong), source, target)

    def clock_skew(self, name: str, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Have a member's clock differ from the others' by so many seconds, backwards if negative;
        see :meth:`pytest_nixos.Faults.clock_jump`.

        :raises FaultError: for a container, whose clock is the host machine's.
        """
        return Faults(self._machine(name)).clock_jump(seconds)

    @contextlib.contextmanager
    def flapping(self, name: str, *, up_s: float = 1.0, down_s: float = 1.0) -> Iterator[None]:
        """Pull and plug in a member's cable again and again; it is in afterwards.

        :raises FaultError: if its backend has no cable that could be pulled.
        """
        running = self._machine(name).running
        if not isinstance(running, Pluggable):
            raise FaultError(
                f"{name}: its {self._machine(name).backend.name.value} has no cable that could be pulled",
                remedy="run the host as a VM",
            )
        ended = threading.Event()

        def flap() -> None:
            while not ended.is_set():
                running.plug(connected=False)
                ended.wait(down_s)
                running.plug(connected=True)
                ended.wait(up_s)

        thread = threading.Thread(target=flap, name="nixos-flapping", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(down_s + up_s + _JOIN_S)
            running.plug(connected=True)

    def _between(
        self, impairment: Impairment, source: Members, target: Members
    ) -> contextlib.AbstractContextManager[NetworkFault]:
        return self._at_work((impairment, self._members(source), self._members(target)))

    @contextlib.contextmanager
    def _at_work(
        self, *wanted: tuple[Impairment, Collection[str] | None, Collection[str] | None]
    ) -> Iterator[NetworkFault]:
        with contextlib.ExitStack() as stack:
            rules: list[Rule] = []
            for network in self._networks:
                made = [
                    Rule(
                        impairment,
                        sources=_ports(network, sources),
                        targets=_ports(network, targets),
                    )
                    for impairment, sources, targets in wanted
                ]
                stack.enter_context(network.switch.under(*made))
                rules += made
            for machine in self._machines.values():
                machine.invalidate()
            try:
                yield NetworkFault(tuple(rules))
            finally:
                for machine in self._machines.values():
                    machine.invalidate()

    def _sides(self, sides: Sequence[Collection[str]]) -> list[tuple[str, ...]]:
        parts = [tuple(self._members(side) or ()) for side in sides]
        named = [name for part in parts for name in part]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise FaultError(
                f"partition: {twice[0]} is on two sides", remedy="name each member once"
            )
        rest = tuple(name for name in self._machines if name not in named)
        parts = [part for part in (*parts, rest) if part]
        if len(parts) < 2:
            raise FaultError(
                "partition: all members are on one side",
                remedy="leave some out, or name a second side",
            )
        return parts

    def _members(self, names: Members) -> tuple[str, ...] | None:
        if names is None:
            return None
        found = (names,) if isinstance(names, str) else tuple(names)
        for name in found:
            self._machine(name)
        return found

    def _machine(self, name: str) -> Machine:
        if name not in self._machines:
            raise FaultError(
                f"{name}: no member of this cluster",
                remedy=f"its members are {', '.join(self._machines)}",
            )
        return self._machines[name]


def _ports(network: ClusterNetwork, names: Collection[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(p for name in names for p in network.ports_of(name))
