"""Several machines of one flake on one private network."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.cluster.segment import Segment

__all__ = ["Cluster"]

# Adds names to /etc/hosts, which is a link into the store, where `getent` does not find them yet.
_NAME = """
while read -r address name; do
  getent ahosts "$name" >/dev/null 2>&1 && continue
  content=$(cat /etc/hosts)
  rm -f /etc/hosts
  printf '%s\\n' "$content" "$address $name" >/etc/hosts
  echo "$name"
done
"""


class Cluster(Mapping[str, Machine]):
    """Running machines by the names of their hosts, on one network segment.

    A machine reaches another by the names and addresses that the hosts declare. A host that
    declares no address for ``eth0`` is given one; a host's name that nothing resolves is added to
    ``/etc/hosts``.
    """

    def __init__(self, machines: Mapping[str, Machine], segment: Segment) -> None:
        self._machines = dict(machines)
        self._segment = segment
        #: Names that had to be added to a machine's ``/etc/hosts``, by host.
        self.added_names: dict[str, tuple[str, ...]] = {}

    def __getitem__(self, name: str) -> Machine:
        return self._machines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._machines)

    def __len__(self) -> int:
        return len(self._machines)

    def address(self, name: str) -> IPv4Address:
        """Return the address of a machine on the common network."""
        return self._segment.addresses[name].target

    def connect(self, name: str, port: int, *, timeout_s: float = 10.0) -> socket.socket:
        """Connect to a TCP port of a machine, as a stranger on the same network does.

        :raises TransportError: if there is no connection in time.
        """
        return self._segment.connect(name, port, timeout_s=timeout_s)

    def cut(self, name: str) -> None:
        """Take a machine off the network; it runs on."""
        self._segment.cut(name)

    def mend(self, name: str) -> None:
        """Put a machine back on the network."""
        self._segment.mend(name)

    def introduce(self) -> None:
        """Let every machine find the others by name."""
        for name, machine in self._machines.items():
            lines = [
                f"{self.address(other)} {known}"
                for other, peer in self._machines.items()
                if other != name
                for known in dict.fromkeys((peer.spec.host.host_name, other))
                if known and shlex.quote(known) == known
            ]
            answer = machine.run(_NAME, stdin="".join(f"{line}\n" for line in lines).encode())
            self.added_names[name] = tuple(answer.stdout_text.split())
