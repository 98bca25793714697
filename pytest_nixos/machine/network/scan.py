"""Networks of machines: addresses of a private link, and what a stranger sees of TCP ports."""

from __future__ import annotations

import errno
import os
import resource
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Network
from pathlib import Path
from typing import Self

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = [
    "GUEST_INTERFACE",
    "OWN_PREFIX",
    "LinkAddresses",
    "link_addresses",
    "scan_tcp",
]

# What nixos-container calls the container's end of its link.
GUEST_INTERFACE = "eth0"
_MORE_CARDS = tuple(f"eth{number}" for number in range(1, 5))
_OWN_OUTSIDE = IPv4Interface("10.233.0.1/24")
_OWN_GUEST = IPv4Interface("10.233.0.2/24")
#: Of IPv6, what a guest takes an address of by itself (RFC 4193).
OWN_PREFIX = IPv6Network("fd70:7974:6e69:233::/64")

# A lost SYN is sent again after 1 s; a host machine under load needs a little more.
_PATIENCE_S = 2.5
# What connect(2) tells, and what a connection says that stood and was reset before we looked: Linux,
# tcp_reset() of net/ipv4/tcp_input.c.
_STATES = {
    0: PortState.OPEN,
    errno.ECONNRESET: PortState.OPEN,
    errno.EPIPE: PortState.OPEN,
    errno.ECONNREFUSED: PortState.CLOSED,
}
_MOST_AT_ONCE = 1024
_SPARE_DESCRIPTORS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAddresses:
    """The two ends of a machine's private link.

    :param outside: the stranger's end.
    :param guest: what the guest's end is given before its boot; ``None`` if the host declares its
        own.
    :param target: the guest's address as the stranger calls it.
    :param more: further interfaces that the host gives addresses of their own; each has a link too.
    :param hardware: of the guest's end; ``""`` for any.
    """

    outside: IPv4Interface
    guest: IPv4Interface | None
    target: IPv4Address
    more: tuple[str, ...] = ()
    hardware: str = ""


def link_addresses(host: HostConfig) -> LinkAddresses:
    """Choose addresses: those that the host declares for ``eth0`` where a stranger can share
    their network.

    Both ends lie in network namespaces of their own, so that no address can collide with another
    machine's.
    """
    declared = _declared_addresses(host)
    for guest in declared:
        taken = {entry.ip for entry in declared}
        free = next((ip for ip in guest.network.hosts() if ip not in taken), None)
        if guest.network.prefixlen <= 30 and free is not None:
            outside = IPv4Interface((free, guest.network.prefixlen))
            return LinkAddresses(
                outside=outside, guest=None, target=guest.ip, more=_more_interfaces(host)
            )
    return LinkAddresses(
        outside=_OWN_OUTSIDE, guest=_OWN_GUEST, target=_OWN_GUEST.ip, more=_more_interfaces(host)
    )


def scan_tcp(
    address: IPv4Address | IPv6Address,
    ports: Sequence[int],
    *,
    deadline: Deadline,
    patience_s: float = _PATIENCE_S,
) -> Mapping[int, PortState]:
    """Connect to each port from this thread's network namespace, many at once.

    A port is open if the connection stands, closed if it is refused, filtered if nothing but
    silence or an ICMP error comes back.

    :param patience_s: seconds to wait for one port.
    :raises TransportError: if a port could not be tried, by a fault on this side or for lack of
        time.
    """
    with _Scan(address, deadline=deadline, patience_s=patience_s) as scan:
        waiting = iter(dict.fromkeys(ports))
        limit = _connections_at_once()
        while scan.fill(waiting, limit=limit):
            scan.collect()
        return {port: scan.states[port] for port in ports}


class _Scan:
    """Connections under way; the oldest is the first whose patience ends."""

    def __init__(
        self, address: IPv4Address | IPv6Address, *, deadline: Deadline, patience_s: float
    ) -> None:
        self.states: dict[int, PortState] = {}
        self._address = str(address)
        self._family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._deadline = deadline
        self._patience_s = patience_s
        self._selector = selectors.DefaultSelector()
        self._pending: dict[socket.socket, tuple[int, float]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for connection in list(self._pending):
            self._forget(connection)
        self._selector.close()

    def fill(self, waiting: Iterator[int], *, limit: int) -> bool:
        """Begin connections until `limit` are under way; return whether any is."""
        while len(self._pending) < limit:
            port = next(waiting, None)
            if port is None:
                break
            self._refuse_haste()
            self._begin(port)
        return bool(self._pending)

    def collect(self) -> None:
        """Wait for news from the network or for the end of the oldest connection's patience."""
        looked_s = time.monotonic()
        _, oldest_s = next(iter(self._pending.values()))
        wait_s = min(oldest_s + self._patience_s - looked_s, self._deadline.remaining_s)
        for key, _ in self._selector.select(max(0.0, wait_s)):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            port, _ = self._forget(connection, close=False)
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            connection.close()
            self._judge(port, error)
        self._give_up(looked_s)

    def _begin(self, port: int) -> None:
        connection = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        error = connection.connect_ex((self._address, port))
        if error == errno.EINPROGRESS:
            self._pending[connection] = (port, time.monotonic())
            self._selector.register(connection, selectors.EVENT_WRITE)
            return
        connection.close()
        # The network's answers come later; what connect(2) knows at once is loopback's answer or
        # our own mistake.
        if error not in (0, errno.ECONNREFUSED):
            raise TransportError(
                f"{self._address}: TCP port {port} cannot be tried from here: {os.strerror(error)}",
                remedy="check the network of the host machine",
            )
        self._judge(port, error)

    def _judge(self, port: int, error: int) -> None:
        self.states[port] = _STATES.get(error, PortState.FILTERED)

    def _give_up(self, looked_s: float) -> None:
        """Judge those silent that had all their time before we last looked: we may have been kept
        from the processor since.
        """
        for connection, (port, began_s) in list(self._pending.items()):
            if looked_s - began_s < self._patience_s:
                break
            self._forget(connection)
            self.states[port] = PortState.FILTERED
        if self._pending:
            self._refuse_haste()

    def _refuse_haste(self) -> None:
        if self._deadline.expired:
            raise TransportError(
                f"{self._address}: only {len(self.states)} TCP ports could be tried within "
                f"{self._deadline.limit_s:g} s",
                remedy="allow more time, or probe fewer ports",
            )

    def _forget(self, connection: socket.socket, *, close: bool = True) -> tuple[int, float]:
        self._selector.unregister(connection)
        if close:
            connection.close()
        return self._pending.pop(connection)


def _connections_at_once() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return max(8, min(_MOST_AT_ONCE, soft - in_use - _SPARE_DESCRIPTORS))


def _declared_addresses(host: HostConfig, interface: str = GUEST_INTERFACE) -> list[IPv4Interface]:
    """Return the addresses that ``networking.interfaces`` or ``systemd.network`` give a card."""
    return [address for card in host.cards if card.name == interface for address in card.v4]


def _more_interfaces(host: HostConfig) -> tuple[str, ...]:
    """Return the host's further network cards: those of nixos-container's names that it gives a
    static address.
    """
    return tuple(n for n in _MORE_CARDS if _declared_addresses(host, n))
