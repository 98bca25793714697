"""One Ethernet segment for several containers: a bridge in a network namespace of its own.

Every container keeps its ``eth0``; the other end of its link becomes a port of the bridge. Frames
with VLAN tags pass. This machine's own network is not touched, and the namespace goes away with the
process that holds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Interface

from pytest_nixos.errors import MachineError, TransportError
from pytest_nixos.local.namespace import in_network_of, link_argv
from pytest_nixos.local.process import Runner, find_tool, owned_process
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.container.nspawn import OUTSIDE_INTERFACE
from pytest_nixos.machine.container.started import Launched
from pytest_nixos.machine.container.strategy import NspawnStrategy
from pytest_nixos.machine.network.dhcp import DhcpServer, Lease
from pytest_nixos.machine.network.scan import GUEST_INTERFACE, LinkAddresses, segment_addresses
from pytest_nixos.nix.host_facts import HostConfig

__all__ = ["Segment", "SegmentStrategy", "bridge_argv", "join_argv", "port_argv", "segment"]

_BRIDGE = "segment0"
_SHORT_S = 30.0
_SIOCGIFHWADDR = 0x8927  # linux/sockios.h
# Arguments: the bridge's addresses. It lives until its standard input is closed.
_HOLD = f"""
set -eu
ip link set lo up
ip link add {_BRIDGE} type bridge
ip link set {_BRIDGE} up
for address; do ip addr add "$address" dev {_BRIDGE}; done
echo ready
exec cat
"""


class Segment:
    """A running segment; made by :func:`segment`.

    :param pid: a process in its namespace.
    :param addresses: of every host, by attribute name.

    ``ports`` names the outer end of each host's link, by attribute name.
    """

    def __init__(self, runner: Runner, pid: int, addresses: Mapping[str, LinkAddresses]) -> None:
        self.pid = pid
        self.addresses = addresses
        self._runner = runner
        self.ports = {name: f"port{number}" for number, name in enumerate(addresses)}

    def join(self, name: str, outside_pid: int, leader_pid: int) -> Callable[[], None]:
        """Make the outer end of a container's link a port of the bridge; return what ends its
        DHCP service.

        :param outside_pid: a process in the namespace where that end is now.
        :param leader_pid: the container's process 1.
        """
        hardware = in_network_of(leader_pid, lambda: _hardware_address(GUEST_INTERFACE))
        for argv in join_argv(outside_pid, self.pid, self.ports[name]):
            self._run(argv)
        link = self.addresses[name]
        guest = link.guest or IPv4Interface((link.target, link.outside.network.prefixlen))
        lease = Lease(server=link.outside.ip, guest=guest, hardware=hardware)
        return DhcpServer(self.pid, _BRIDGE, lease).close

    def cut(self, name: str) -> None:
        """Take a host off the segment, as if its cable were pulled."""
        self._run(port_argv(self.pid, self.ports[name], "down"))

    def mend(self, name: str) -> None:
        """Put a host back on the segment."""
        self._run(port_argv(self.pid, self.ports[name], "up"))

    def connect(self, name: str, port: int, *, timeout_s: float) -> socket.socket:
        """Connect to a host as a stranger on the segment does.

        :raises TransportError: if there is no connection in time.
        """
        address = str(self.addresses[name].target)
        try:
            return in_network_of(
                self.pid, lambda: socket.create_connection((address, port), timeout=timeout_s)
            )
        except OSError as err:
            raise TransportError(
                f"{name}: no connection to TCP port {port}: {err.strerror or err}",
                remedy="look at the service's journal and at the firewall",
            ) from err

    def _run(self, argv: Sequence[str]) -> None:
        done = self._runner.run(argv, deadline=Deadline.after(_SHORT_S))
        if done.exit_status != 0:
            raise MachineError(
                f"{' '.join(argv[2:])}: {done.stderr_text.strip()}",
                remedy="check that this machine's kernel has bridges (modprobe bridge)",
            )


class SegmentStrategy:
    """Starts containers whose links are ports of one segment."""

    def __init__(
        self,
        runner: Runner,
        inherited: Mapping[str, str],
        common_segment: Segment,
        *,
        root_is_machine_root: bool = False,
    ) -> None:
        self._segment = common_segment
        self._inner = NspawnStrategy(
            runner,
            inherited,
            addresses=lambda host: common_segment.addresses[host.name],
            root_is_machine_root=root_is_machine_root,
        )

    def launch(
        self,
        spec: MachineSpec,
        console: Console,
        stack: contextlib.ExitStack,
        *,
        deadline: Deadline,
    ) -> Launched:
        """Start a container; see
        :class:`~pytest_nixos.machine.container.strategy.ContainerStrategy`.
        """
        launched = self._inner.launch(spec, console, stack, deadline=deadline)

        def join(leader_pid: int) -> Callable[[], None]:
            self._inner.address(leader_pid, self._segment.addresses[spec.host.name])
            return self._segment.join(spec.host.name, launched.outside_pid, leader_pid)

        return dataclasses.replace(
            launched,
            outside_pid=self._segment.pid,
            interface=self._segment.ports[spec.host.name],
            on_created=join,
        )


@contextlib.contextmanager
def segment(runner: Runner, hosts: Sequence[HostConfig]) -> Iterator[Segment]:
    """Make a segment for `hosts`, and remove it afterwards.

    :raises MachineError: if two hosts declare the same address, or this machine cannot make one.
    :raises ToolMissingError: if unshare, nsenter or ip is missing.
    """
    for tool, package in (("unshare", "util-linux"), ("nsenter", "util-linux"), ("ip", "iproute2")):
        find_tool(tool, remedy=f"install {package}")
    addresses = segment_addresses(hosts)
    outside = sorted({str(link.outside) for link in addresses.values()})
    with owned_process(bridge_argv(outside)) as holder:
        assert holder.stdout and holder.stderr
        if holder.stdout.readline() != b"ready\n":
            raise MachineError(
                f"no network segment: {holder.stderr.read().decode(errors='replace').strip()}",
                remedy="run as root; the kernel needs bridges (modprobe bridge)",
            )
        yield Segment(runner, holder.pid, addresses)


def bridge_argv(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the command that holds the namespace with the bridge in it."""
    return ("unshare", "--net", "--", "/bin/sh", "-c", _HOLD, "pytest-nixos-segment", *addresses)


def join_argv(outside_pid: int, segment_pid: int, port: str) -> tuple[tuple[str, ...], ...]:
    """Return the commands that move the outer end of a link to the bridge."""
    return (
        link_argv(outside_pid, OUTSIDE_INTERFACE, "down"),
        link_argv(outside_pid, OUTSIDE_INTERFACE, "name", port),
        link_argv(outside_pid, port, "netns", str(segment_pid)),
        link_argv(segment_pid, port, "master", _BRIDGE),
        port_argv(segment_pid, port, "up"),
    )


def port_argv(segment_pid: int, port: str, state: str) -> tuple[str, ...]:
    """Return the command that switches a port of the bridge ``up`` or ``down``."""
    return link_argv(segment_pid, port, state)


def _hardware_address(interface: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("256s", interface.encode())
        return fcntl.ioctl(probe.fileno(), _SIOCGIFHWADDR, request)[18:24]
