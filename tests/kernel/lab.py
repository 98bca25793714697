"""Three network namespaces joined by veth pairs: a stranger, a host with a packet filter, and
somebody behind it.

Real rules, real packets: what arrives at a raw socket of the host, or on the wire of the one behind
it, was accepted. Needs root, ``unshare`` and ``nsenter`` (util-linux), ``ip``, ``nft`` and
``iptables``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import observe
from pytest_nixos.observe.firewall.cast import Cast
from pytest_nixos.observe.firewall.probe import FirewallState, firewall

__all__ = ["Lab", "Packet", "missing_packages"]

PROGRAMS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "nft": "nftables",
    "iptables-save": "iptables",
    "iptables-legacy-save": "iptables",
}
_PROTOCOLS = (1, 6, 17, 50, 58, 253)
_TAG = b"pnix"
_MACS = {
    name: f"02:00:00:00:00:0{number}"
    for number, name in enumerate(("s0", "eth0", "s1", "eth1", "c0", "int0"))
}
_PAIRS = (("s0", "eth0", 77), ("s1", "eth1", 78), ("c0", "int0", 79))
_CLONE_NEWNET = 0x40000000
_NETLINK_NETFILTER = 12
_ROOM = 1 << 22
_QUIET_MS = 20
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_KERNEL = """
set -e
echo 1 > /proc/sys/net/ipv4/ip_forward
for key in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $key; done
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ip link set lo up
"""
# Whoever comes through eth1 is reached by it.
_ROUTES = """
set -e
ip route add default via 10.77.0.1
ip -6 route add default via fd77::1 dev eth0
ip route add 192.168.0.0/16 via 10.78.0.1
ip route add 203.0.113.0/24 via 10.78.0.1
ip -6 route add 2001:db8::/32 via fd78::1 dev eth1
"""
# Only what was used has tables to be emptied.
_FORGET_LEGACY = """
for tool in iptables ip6tables; do
  for table in filter nat mangle raw; do
    $tool-legacy -t $table -F
    $tool-legacy -t $table -X
    for chain in PREROUTING INPUT FORWARD OUTPUT POSTROUTING; do
      $tool-legacy -t $table -P $chain ACCEPT
    done
  done
done 2>/dev/null
true
"""


def missing_packages(more: Mapping[str, str] | None = None) -> list[str]:
    """Return what has to be installed, as Debian's packages; empty if everything is there.

    :param more: further programs, to the packages that have them.
    """
    wanted = {**PROGRAMS, **(more or {})}
    return sorted({p for name, p in wanted.items() if not shutil.which(name, path=_PATH)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One packet to be sent.

    :param link: 0 for the host's ``eth0``, 1 for its ``eth1``.
    :param kind: type of an ICMP message.
    """

    link: int
    protocol: int
    source: str
    destination: str
    sport: int = 40000
    dport: int = 0
    kind: int = 8
    code: int = 0
    hops: int = 64
    traffic_class: int = 0
    size: int = 8

    @property
    def family(self) -> int:
        return ip_address(self.source).version

    @property
    def cast(self) -> Cast:
        """Whom it is sent to; of the lab's networks the last address is for all."""
        destination = ip_address(self.destination)
        if destination.is_multicast:
            return Cast.MULTICAST
        all_ones = self.family == 4 and destination.packed[-1] == 255
        return Cast.BROADCAST if all_ones else Cast.UNICAST

    @property
    def mac(self) -> bytes:
        """The Ethernet address that a packet of its kind goes to; RFC 1112 and 2464."""
        packed = ip_address(self.destination).packed
        match self.cast:
            case Cast.UNICAST:
                return _mac(f"eth{self.link}")
            case Cast.BROADCAST:
                return b"\xff" * 6
            case _ if self.family == 6:
                return b"\x33\x33" + packed[-4:]
            case _:
                return b"\x01\x00\x5e" + bytes([packed[1] & 0x7F]) + packed[2:]

    def network(self, number: int) -> bytes:
        """Build it, from the IP header on."""
        body = self._transport(number)
        addresses = self._addresses
        if self.family == 6:
            first = 6 << 28 | self.traffic_class << 20
            return (
                struct.pack("!IHBB", first, len(body), self.protocol, self.hops) + addresses + body
            )
        size, identifier = 20 + len(body), number & 0xFFFF
        head = struct.pack(
            "!BBHHHBB", 0x45, self.traffic_class, size, identifier, 0x4000, self.hops, self.protocol
        )
        total = _checksum(head + b"\0\0" + addresses)
        return head + struct.pack("!H", total) + addresses + body

    def point(self, number: int) -> dict[str, int]:
        """Return the packet as the evaluator sees it: dimension to value."""
        whole = self.network(number)
        body = whole[20:] if self.family == 4 else whole[40:]
        first, second = struct.unpack_from("!HH", body)
        found = {
            "family": self.family,
            "protocol": self.protocol,
            "saddr": int(ip_address(self.source)),
            "daddr": int(ip_address(self.destination)),
            "sport": first,
            "dport": second,
            "ethertype": 0x0800 if self.family == 4 else 0x86DD,
            "pkttype": self.cast.value,
            "meta.length": len(whole),
            "tcp.flags": 2,
        }
        if self.protocol in (1, 58):
            name = "icmp" if self.protocol == 1 else "icmpv6"
            found |= {f"{name}.type": self.kind, f"{name}.code": self.code}
        if self.family == 6:
            found |= {"ip6.hoplimit": self.hops, "ip6.length": len(body), "ip6.version": 6}
            return found | {"ip6.dscp": self.traffic_class >> 2}
        found |= {"ip.ttl": self.hops, "ip.dscp": self.traffic_class >> 2, "ip.length": len(whole)}
        found |= {"ip.frag-off": 0x4000, "ip.version": 4, "ip.hdrlength": 5}
        return found | {"ip.id": number & 0xFFFF}

    @property
    def _addresses(self) -> bytes:
        return ip_address(self.source).packed + ip_address(self.destination).packed

    def _transport(self, number: int) -> bytes:
        data = (_TAG + struct.pack("!I", number)).ljust(self.size, b"x")
        match self.protocol:
            case 6:
                head = struct.pack("!HHIIBBHHH", self.sport, self.dport, 1, 0, 5 << 4, 2, 64, 0, 0)
                return self._summed(head + data, 16)
            case 17:
                head = struct.pack("!HHHH", self.sport, self.dport, 8 + len(data), 0)
                return self._summed(head + data, 6)
            case 1 | 58:
                head = struct.pack("!BBHHH", self.kind, self.code, 0, self.sport, 1)
                return self._summed(head + data, 2)
            case _:
                return struct.pack("!HHI", self.sport, self.dport, 1) + data

    def _summed(self, body: bytes, at: int) -> bytes:
        pseudo = self._addresses + struct.pack("!IHBB", len(body), 0, 0, self.protocol)
        total = _checksum((b"" if self.protocol == 1 else pseudo) + body)
        return body[:at] + struct.pack("!H", total or 0xFFFF) + body[at + 2 :]


class Lab:
    """The namespaces; a context manager that leaves nothing behind."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._number = 0

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def next_number(self) -> int:
        """The number of the next packet."""
        return self._number

    def load(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script on the host, to load rules."""
        argv = _argv(self._host, script)
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def observe(self) -> FirewallState:
        """Look at the rules with the plugin's own probe."""
        return observe(self._run, firewall())

    def _run(self, command: str) -> CommandResult:
        argv = _argv(self._host, command)
        done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
        return CommandResult(
            command=command,
            exit_status=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.0,
        )

    def clear(self, *, legacy: bool) -> None:
        """Take all rules away, and forget all connections.

        :param legacy: also those of the kernel's old iptables.
        """
        self.load("nft flush ruleset" + (_FORGET_LEGACY if legacy else ""))
        self.forget()

    def forget(self) -> None:
        """Forget all connections, so that the next packet is the first of its own."""
        for family in (socket.AF_INET, socket.AF_INET6):
            # IPCTNL_MSG_CT_DELETE without a tuple deletes all.
            head = struct.pack("=IHHII", 20, 1 << 8 | 2, 0x5, 1, 0)
            self._netlink.send(head + struct.pack("=BBH", family, 0, 0))
            self._netlink.recv(4096)

    def send(self, packets: Sequence[Packet]) -> list[bool]:
        """Send packets; return for each whether it was accepted."""
        begin = self._number
        for number, packet in enumerate(packets, start=begin):
            kind = 0x0800 if packet.family == 4 else 0x86DD
            macs = packet.mac + _mac(f"s{packet.link}")
            frame = macs + struct.pack("!H", kind) + packet.network(number)
            self._speakers[packet.link].send(frame)
        self._number += len(packets)
        arrived = self._arrived()
        return [begin + n in arrived for n in range(len(packets))]

    def _build(self) -> None:
        stranger, self._host, behind = (self._namespace() for _ in range(3))
        for name, peer, _ in _PAIRS:
            _shell(
                behind if name == "c0" else stranger,
                f"ip link add {name} address {_MACS[name]} type veth"
                f" peer name {peer} address {_MACS[peer]} netns {self._host}; ip link set {name} up",
            )
        _shell(self._host, _KERNEL)
        for name, peer, number in _PAIRS:
            own, other = (1, 2) if name == "c0" else (2, 1)
            lines = [
                f"echo 0 > /proc/sys/net/ipv4/conf/{peer}/rp_filter",
                f"ip link set {peer} up",
                f"ip addr add 10.{number}.0.{own}/24 dev {peer}",
                f"ip addr add fd{number}::{own}/64 dev {peer} nodad",
            ]
            for address in (f"10.{number}.0.{other}", f"fd{number}::{other}"):
                way = f"lladdr {_MACS[name]} dev {peer} nud permanent"
                lines.append(f"ip neigh replace {address} {way}")
            _shell(self._host, "set -e\n" + "\n".join(lines))
        _shell(self._host, _ROUTES)
        with _inside(stranger):
            self._speakers = [self._packet_socket(f"s{n}", 0) for n in (0, 1)]
        with _inside(behind):
            self._behind = self._packet_socket("c0", 3)
        with _inside(self._host):
            self._listeners = [
                self._raw_socket(family, protocol)
                for protocol in _PROTOCOLS
                for family in (socket.AF_INET, socket.AF_INET6)
                if (family, protocol) not in ((socket.AF_INET, 58), (socket.AF_INET6, 1))
            ]
            self._netlink = self._stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            )
            self._netlink.bind((0, 0))

    def _arrived(self) -> set[int]:
        ears = {ear.fileno(): ear for ear in (*self._listeners, self._behind)}
        poller = select.poll()
        for descriptor in ears:
            poller.register(descriptor, select.POLLIN)
        found: set[int] = set()
        while ready := poller.poll(_QUIET_MS):
            for descriptor, _ in ready:
                data = ears[descriptor].recv(4096)
                at = data.find(_TAG)
                if at >= 0:
                    found.add(struct.unpack_from("!I", data, at + len(_TAG))[0])
        return found

    def _namespace(self) -> int:
        """Start a process that holds a network namespace of its own until its standard input is
        closed.
        """
        holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdin is not None and holder.stdout is not None
        self._stack.callback(holder.wait, timeout=10)
        self._stack.callback(holder.stdin.close)
        self._stack.callback(holder.stdout.close)
        assert holder.stdout.readline() == b"ready\n", "unshare -n failed: it needs root"
        return holder.pid

    def _packet_socket(self, device: str, kind: int) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
        found = self._stack.enter_context(made)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        found.bind((device, kind))
        return found

    def _raw_socket(self, family: int, protocol: int) -> socket.socket:
        made = socket.socket(family, socket.SOCK_RAW, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        return self._stack.enter_context(made)


def _mac(name: str) -> bytes:
    return bytes.fromhex(_MACS[name].replace(":", ""))


def _argv(pid: int, script: str) -> list[str]:
    inside = f"--net=/proc/{pid}/ns/net"
    return ["nsenter", inside, "env", f"PATH={_PATH}", "bash", "-c", script]


def _shell(pid: int, script: str) -> None:
    argv = _argv(pid, script)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (script, done.stderr)


@contextlib.contextmanager
def _inside(pid: int) -> Iterator[None]:
    """Be in a process's network namespace, with this thread alone (setns(2); Python has it from
    3.12 on).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (Path("/proc/thread-self/ns/net"), Path(f"/proc/{pid}/ns/net"))
    with paths[0].open() as before, paths[1].open() as there:
        _enter(libc, there.fileno())
        try:
            yield
        finally:
            _enter(libc, before.fileno())


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
