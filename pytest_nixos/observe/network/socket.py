"""Addresses, and sockets as ``/proc/net`` shows them, on demand with the processes that own
them.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import read_json, whole

__all__ = [
    "InetSocket",
    "Owner",
    "Protocol",
    "Sockets",
    "UnixSocket",
    "addresses",
    "sockets",
]

_LISTEN = 0x0A  # include/net/tcp_states.h
_ESTABLISHED = 0x01
_UNBOUND_PEER = 0x07  # an unconnected UDP socket is in TCP_CLOSE
_UNIX_LISTEN_FLAG = 0x10000  # __SO_ACCEPTCON
_UNIX_CONNECTED = 0x03

# `$(<file)` reads without starting a program.
_TABLES = ("tcp", "tcp6", "udp", "udp6", "unix")
_READ = r"""
for table in tcp tcp6 udp udp6 unix; do
  [ -r /proc/net/$table ] && { title $table; printf '%s\n' "$(</proc/net/$table)"; }
done
[ -r /proc/sys/net/ipv6/bindv6only ] && title bindv6only "$(</proc/sys/net/ipv6/bindv6only)"
true
"""

# Expensive: one pass over all descriptors. `find -printf` reads the links itself, with no program
# for each.
_OWNERS = r"""
title owners
find /proc/[0-9]*/fd -maxdepth 1 -lname 'socket:*' -printf '%p %l\n'
title cgroups
for cgroup in /proc/[0-9]*/cgroup; do
  pid=${cgroup#/proc/}; pid=${pid%/cgroup}
  path=; while IFS=: read -r id controllers rest; do
    case $id:$controllers in 0:) [ "$rest" = / ] && [ -n "$path" ] || path=$rest;; *:name=systemd) path=$rest;; esac
  done <"$cgroup"
  read -r comm <"/proc/$pid/comm" || comm=
  printf '%s %s %s\n' "$pid" "${path:-/}" "$comm"
done
"""


class Protocol(enum.Enum):
    """Transport protocol of an internet socket."""

    TCP = "tcp"
    UDP = "udp"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """A process that holds a socket open.

    :param unit: systemd unit of its control group, ``""`` if none.
    """

    pid: int
    comm: str
    unit: str


class InetSocket(msgspec.Struct, frozen=True, kw_only=True):
    """One TCP or UDP socket.

    :param address: local address; IPv4 in IPv6 (``::ffff:192.0.2.1``) is given as IPv4.
    :param dual_stack: a wildcard IPv6 socket that takes IPv4 too.
    :param peer: remote (address, port) of a connected socket.
    :param uid: user id of its owner.
    """

    protocol: Protocol
    address: str
    port: int
    listening: bool
    dual_stack: bool
    peer: tuple[str, int] | None
    uid: int
    inode: int

    @property
    def is_wildcard(self) -> bool:
        """Whether it takes packets to any address."""
        return self.address in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound

    @property
    def is_loopback(self) -> bool:
        """Whether only the guest itself can reach it."""
        return ipaddress.ip_address(self.address).is_loopback


class UnixSocket(msgspec.Struct, frozen=True, kw_only=True):
    """One Unix socket with a name; an abstract one begins with ``@``."""

    path: str
    kind: str
    listening: bool
    connected: bool
    inode: int


class Sockets(msgspec.Struct, frozen=True, kw_only=True):
    """All sockets of the guest's main network namespace.

    :param has_ipv6: whether the kernel speaks IPv6.
    :param owners: inode to the processes that hold it; empty unless asked for.
    """

    inet: tuple[InetSocket, ...]
    unix: tuple[UnixSocket, ...]
    has_ipv6: bool
    owners: Mapping[int, tuple[Owner, ...]]

    def listening(self, protocol: Protocol) -> Sequence[InetSocket]:
        """Return the listening TCP or unconnected UDP sockets."""
        return [s for s in self.inet if s.listening and s.protocol is protocol]

    def reachable_ports(self, protocol: Protocol) -> Sequence[int]:
        """Return the ports that something outside could reach if no firewall were in the way."""
        return sorted({s.port for s in self.listening(protocol) if not s.is_loopback})

    def addresses(self, protocol: Protocol, port: int) -> Sequence[str]:
        """Return the local addresses on which `port` listens."""
        found: set[str] = set()
        for listening in self.listening(protocol):
            if listening.port == port:
                found |= {listening.address, *(["0.0.0.0"] if listening.dual_stack else [])}  # noqa: S104
        return sorted(found)

    def units(self, protocol: Protocol, port: int) -> Sequence[str]:
        """Return the units whose processes listen on `port`; needs owners."""
        inodes = [s.inode for s in self.listening(protocol) if s.port == port]
        return sorted({owner.unit for inode in inodes for owner in self.owners.get(inode, ())})

    def units_by_port(self) -> Mapping[int, Sequence[str]]:
        """Return each port on which something listens, TCP or UDP, with the units whose processes do;
        needs owners.
        """
        ports = {s.port for protocol in Protocol for s in self.listening(protocol)}
        found = {p: {u for kind in Protocol for u in self.units(kind, p)} for p in ports}
        return {port: sorted(units) for port, units in found.items()}


def sockets(*, owners: bool = False, name: str = "socket") -> Probe[Sockets]:
    """Ask for all sockets.

    :param owners: also find the processes and units that own them; a pass over every process's
        descriptors, about 50 ms under KVM and 0.3 s under TCG.
    """
    return Probe(name=name, script=_READ + (_OWNERS if owners else ""), parse=_parse)


def addresses(*, name: str = "address") -> Probe[Sequence[str] | None]:
    """Ask for all addresses with prefix length (``10.0.0.41/19``); ``None`` if ip(8) does not
    answer.
    """
    return Probe(name=name, script="ip -json address show", parse=_parse_addresses)


def _parse(output: ProbeOutput) -> Sockets:
    sections = output.sections
    only_v6 = "bindv6only 1" in sections
    inet = [
        found
        for table in _TABLES[:4]
        for line in sections.get(table, ())[1:]
        if (found := _parse_inet(table, line)) is not None
    ]
    return Sockets(
        inet=tuple(_with_dual_stack(inet, only_v6=only_v6)),
        unix=tuple(s for line in sections.get("unix", ())[1:] if (s := _parse_unix(line))),
        has_ipv6="tcp6" in sections,
        owners=_parse_owners(sections),
    )


def _parse_inet(table: str, line: str) -> InetSocket | None:
    # sl  local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt   uid  timeout inode
    fields = line.split()
    try:
        address, port = _endpoint(fields[1])
        peer = _endpoint(fields[2])
        state, uid, inode = int(fields[3], 16), int(fields[7]), int(fields[9])
    except (IndexError, ValueError):
        return None
    protocol = Protocol(table[:3])
    listening = state == (_LISTEN if protocol is Protocol.TCP else _UNBOUND_PEER)
    return InetSocket(
        protocol=protocol,
        address=address,
        port=port,
        listening=listening,
        dual_stack=False,
        peer=peer if state == _ESTABLISHED else None,
        uid=uid,
        inode=inode,
    )


def _endpoint(text: str) -> tuple[str, int]:
    """Decode ``0100007F:0016``: 32-bit words in the guest's byte order, which is little-endian
    on every platform that NixOS boots in these machines (x86_64, aarch64, riscv64).
    """
    words, _, port = text.partition(":")
    raw = bytes.fromhex(words)
    data = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    address = ipaddress.ip_address(data)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address), int(port, 16)


def _with_dual_stack(found: Sequence[InetSocket], *, only_v6: bool) -> Sequence[InetSocket]:
    """Mark wildcard IPv6 sockets that take IPv4 as well.

    ``/proc/net`` does not show IPV6_V6ONLY. Where an IPv4 wildcard socket holds the same port the
    IPv6 one must be for IPv6 only (the kernel refuses the second bind otherwise); elsewhere the
    kernel's default holds.
    """
    v4 = {(s.protocol, s.port) for s in found if s.address == "0.0.0.0"}  # noqa: S104
    marked = []
    for s in found:
        dual = s.address == "::" and not only_v6 and (s.protocol, s.port) not in v4
        marked.append(msgspec.structs.replace(s, dual_stack=True) if dual else s)
    return marked


def _parse_unix(line: str) -> UnixSocket | None:
    # Num       RefCount Protocol Flags    Type St Inode Path
    fields = line.split(None, 7)
    if len(fields) < 8:
        return None
    try:
        flags, kind, state = (int(fields[i], 16) for i in (3, 4, 5))
        inode = int(fields[6])
    except ValueError:
        return None
    kinds = {1: "stream", 2: "dgram", 5: "seqpacket"}
    return UnixSocket(
        path=fields[7],
        kind=kinds.get(kind, str(kind)),
        listening=bool(flags & _UNIX_LISTEN_FLAG),
        connected=state == _UNIX_CONNECTED,
        inode=inode,
    )


def _parse_owners(sections: Mapping[str, Sequence[str]]) -> Mapping[int, tuple[Owner, ...]]:
    processes: dict[int, Owner] = {}
    for line in sections.get("cgroups", ()):
        pid, _, rest = line.partition(" ")
        cgroup, _, comm = rest.partition(" ")
        if (number := whole(pid)) is not None:
            processes[number] = Owner(pid=number, comm=comm, unit=_unit_of(cgroup))
    owners: dict[int, set[int]] = {}
    for line in sections.get("owners", ()):
        path, _, link = line.partition(" ")
        inode = whole(link.removeprefix("socket:[").removesuffix("]"))
        holder = whole(path.split("/")[2]) if path.count("/") >= 2 else None
        if inode is not None and holder is not None:
            owners.setdefault(inode, set()).add(holder)
    return {
        inode: tuple(processes.get(p, Owner(pid=p, comm="", unit="")) for p in sorted(pids))
        for inode, pids in owners.items()
    }


def _unit_of(cgroup: str) -> str:
    suffixes = (".service", ".scope", ".socket", ".slice")
    units = [part for part in cgroup.split("/") if part.endswith(suffixes)]
    innermost = [part for part in units if not part.endswith(".slice")]
    return (innermost or units or [""])[0] if "init.scope" not in units else "init.scope"


def _parse_addresses(output: ProbeOutput) -> Sequence[str] | None:
    try:
        links: Any = read_json(output.text)
        return tuple(
            f"{info['local']}/{info['prefixlen']}"
            for link in links
            for info in link.get("addr_info", ())
            if "local" in info and "prefixlen" in info
        )
    except (ValueError, TypeError, AttributeError):
        return None
