"""Several machines on private networks."""

from __future__ import annotations

import itertools
import shlex
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

from pytest_nixos.errors import MachineError, TransportError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.cluster.faults import NetworkFaults
from pytest_nixos.machine.cluster.network import ClusterNetwork
from pytest_nixos.machine.cluster.plan import Place
from pytest_nixos.machine.cluster.tunnel import ClusterTunnel

__all__ = ["Cluster", "Plug"]

_ATTEMPT_S = 0.3
_INTERVAL_S = 0.05

# Adds names to /etc/hosts, which is a link into the store, where `getent` does not find them yet. One
# program where all are known: each costs a guest that wakes up tens of milliseconds.
_NAME = """
mapfile -t lines
getent ahosts "${lines[@]#* }" >/dev/null 2>&1 && exit 0
for line in "${lines[@]}"; do
  read -r address name <<<"$line"
  getent ahosts "$name" >/dev/null 2>&1 && continue
  content=$(cat /etc/hosts)
  rm -f /etc/hosts
  printf '%s\\n' "$content" "$address $name" >/etc/hosts
  echo "$name"
done
"""

#: Gives or takes a machine's carrier, by the name of its host.
Plug = Callable[[str, bool], None]


class Cluster(Mapping[str, Machine]):
    """Running machines by the names of their hosts, on one or several networks. Two hosts of one
    name, from two flakes, are called as they were asked for.

    A machine reaches another by the names and addresses that the hosts declare. A card without a
    declared address is given one; a host's name that nothing resolves is added to ``/etc/hosts``.
    """

    def __init__(
        self,
        machines: Mapping[str, Machine],
        networks: Sequence[ClusterNetwork],
        *,
        addresses: Mapping[str, IPv4Address],
        plug: Plug,
        tunnels: Sequence[ClusterTunnel] = (),
    ) -> None:
        self._machines = dict(machines)
        self._networks = {network.name: network for network in networks}
        self._addresses = addresses
        self._plug = plug
        #: Names that had to be added to a machine's ``/etc/hosts``, by host.
        self.added_names: dict[str, tuple[str, ...]] = {}
        #: WireGuard tunnels between the members.
        self.tunnels = tuple(tunnels)
        #: Trouble between the members.
        self.faults = NetworkFaults(self._machines, networks, reaches=self._reaches)

    def __getitem__(self, name: str) -> Machine:
        return self._machines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._machines)

    def __len__(self) -> int:
        return len(self._machines)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks: their subnets as the hosts declare them."""
        return tuple(self._networks)

    def address(self, name: str) -> IPv4Address:
        """Return the address of a machine: that of its first card."""
        return self._addresses[name]

    def connect(
        self, name: str, port: int, *, timeout_s: float = 10.0, network: str | None = None
    ) -> socket.socket:
        """Connect to a TCP port of a machine, as a stranger on the same network does.

        :param network: which of them, that of the machine's first card unless given.
        :raises TransportError: if there is no connection in time.
        :raises MachineError: if the machine is not on that network.
        """
        where, place = self._place(name, network)
        try:
            return where.stranger.connect(place.address.ip, port, timeout_s=timeout_s)
        except TransportError as err:
            raise TransportError(f"{name}: {err.message}", remedy=err.remedy) from err

    def cut(self, name: str) -> None:
        """Take a machine off its networks, as if its cable were pulled; it runs on."""
        self._plug(name, False)

    def mend(self, name: str) -> None:
        """Put a machine back on its networks."""
        self._plug(name, True)

    def reaches(self, source: str, target: str, *, limit_s: float = 1.0) -> bool:
        """Whether one machine has an answer of another: its hardware address (ARP), which no
        packet filter keeps back, there and back over the network.
        """
        return self._reaches(source, target, limit_s)

    def round_trip_s(
        self, source: str, target: str, *, size: int = 0, limit_s: float = 5.0
    ) -> float | None:
        """Measure how long a question of one machine and another's answer take.

        :param size: bytes of the question, at least.
        :return: seconds; ``None`` where no answer comes.
        :raises MachineError: if they share no network.
        """
        return self._common(source, target).round_trip_s(source, target, size=size, limit_s=limit_s)

    def capture(self, path: Path, *, network: str | None = None) -> Path:
        """Write what went over a network, at most its last 16 MiB, as a file that tshark and
        tcpdump read; return its path.

        :param network: name of it, the first unless given.
        """
        name = network or next(iter(self._networks))
        return self._networks[name].capture.write(path)

    def tunnel(self, one: str, other: str, *, interface: str | None = None) -> ClusterTunnel:
        """Return the WireGuard tunnel between two machines.

        :param interface: name of it at one of them, where they have several.
        :raises MachineError: if there is none, or several.
        """
        found = [
            tunnel
            for tunnel in self.tunnels
            if {end.host for end in tunnel.ends} == {one, other}
            and (interface is None or interface in [end.tunnel.name for end in tunnel.ends])
        ]
        if len(found) != 1:
            known = ", ".join(tunnel.name for tunnel in self.tunnels) or "none"
            kind = "no" if not found else "more than one"
            raise MachineError(
                f"{one} and {other} have {kind} WireGuard tunnel"
                + (f" by the interface {interface}" if interface else ""),
                remedy=f"name one of this cluster: {known}",
            )
        return found[0]

    def introduce(self) -> None:
        """Let every machine find the others by name."""
        with ThreadPoolExecutor(max_workers=len(self)) as pool:
            added = pool.map(self._introduce_to, self._machines, itertools.repeat(self._called()))
            self.added_names = dict(zip(self._machines, added, strict=True))

    def _called(self) -> dict[str, str]:
        """Return who is called by each name; of a name that two members have, nobody."""
        names = [
            (known, member)
            for member, machine in self._machines.items()
            for known in {machine.spec.host.host_name, machine.spec.host.name, member}
            if known and shlex.quote(known) == known
        ]
        count = Counter(known for known, _ in names)
        return {known: member for known, member in sorted(names) if count[known] == 1}

    def _introduce_to(self, name: str, called: Mapping[str, str]) -> tuple[str, ...]:
        lines = [
            f"{self.address(other)} {known}" for known, other in called.items() if other != name
        ]
        if not lines:
            return ()
        names = "".join(f"{line}\n" for line in lines).encode()
        return tuple(self._machines[name].run(_NAME, stdin=names).stdout_text.split())

    def _reaches(self, source: str, target: str, limit_s: float) -> bool:
        network = self._common(source, target)

        def ask() -> bool | None:
            return network.round_trip_s(source, target, limit_s=_ATTEMPT_S) is not None or None

        return bool(poll(ask, deadline=Deadline.after(limit_s), interval_s=_INTERVAL_S))

    def _place(self, name: str, network: str | None) -> tuple[ClusterNetwork, Place]:
        for where in self._networks.values():
            for place in where.places:
                by_default = network is None and place.address.ip == self.address(name)
                if place.host == name and (by_default or where.name == network):
                    return where, place
        raise MachineError(
            f"{name}: is not on network {network}",
            remedy=f"networks are {', '.join(self._networks)}",
        )

    def _common(self, source: str, target: str) -> ClusterNetwork:
        for network in self._networks.values():
            if network.place_of(source) and network.place_of(target):
                return network
        raise MachineError(
            f"{source} and {target} share no network",
            remedy=f"networks are {', '.join(self._networks)}; ask for machines of one of them",
        )
