"""A stranger beside a network of a cluster: this machine's own TCP stack, in a network namespace
that needs no root.

A pair of interfaces leads from there to the network's switch: the stranger has one end, the switch
hears the other. Without root the namespace lies in a user namespace of its own (user_namespaces(7)).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from pytest_nixos.errors import MachineError, TransportError
from pytest_nixos.local.process import find_tool, owned_process

__all__ = ["Outside", "outside", "outside_argv"]

_PROGRAM = Path(__file__).with_name("outside_program.py")
_STACK, _WIRE = "outside0", "wire0"
_SHORT_S = 30.0
_MOST = 4096
# Arguments: Python, the program, the socket, and the stranger's addresses. The wire's own stack keeps still.
_HOLD = f"""
set -eu
ip link set lo up
ip link add {_STACK} type veth peer name {_WIRE}
ip link set {_WIRE} addrgenmode none
ip link set {_WIRE} arp off up
ip link set {_STACK} up
python=$1 program=$2 socket=$3
shift 3
for address; do ip addr add "$address" dev {_STACK}; done
exec "$python" -I -S "$program" "$socket"
"""


class Outside:
    """A stranger's place; made by :func:`outside`.

    :param caller: connected to the program in the namespace.
    :param wire: the switch's end, a raw socket.
    :param pid: a process in the namespace.
    """

    def __init__(self, caller: socket.socket, wire: socket.socket, pid: int) -> None:
        self._caller = caller
        self._lock = threading.Lock()
        self.wire = wire
        self.pid = pid

    def connect(self, address: IPv4Address, port: int, *, timeout_s: float) -> socket.socket:
        """Connect to a TCP port as a stranger on the network does.

        :raises TransportError: if there is no connection in time.
        """
        with self._lock:
            made, words = ask(self._caller, ["tcp", str(address), port, timeout_s], timeout_s)
        if made is None:
            raise TransportError(
                f"{address}: no connection to TCP port {port}: {words}",
                remedy="look at the service's journal and at the firewall",
            )
        made.settimeout(timeout_s)
        return made


@contextlib.contextmanager
def outside(directory: Path, addresses: Sequence[IPv4Interface]) -> Iterator[Outside]:
    """Make a stranger's place, and remove it afterwards.

    :param directory: on a short path, for a socket.
    :raises MachineError: if this machine lets its user have no network namespace.
    :raises ToolMissingError: if unshare or ip is missing.
    """
    for tool, package in (("unshare", "util-linux"), ("ip", "iproute2")):
        find_tool(tool, remedy=f"install {package}")
    path = directory / "outside.sock"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(str(path))
        listener.listen(1)
        argv = outside_argv(path, [str(a) for a in addresses], is_root=os.geteuid() == 0)
        holder = stack.enter_context(owned_process(argv))
        assert holder.stderr is not None
        asks, complains = listener.fileno(), holder.stderr.fileno()
        ready, _, _ = select.select([asks, complains], [], [], _SHORT_S)
        if asks not in ready:
            said = os.read(complains, _MOST).decode(errors="replace") if ready else ""
            raise MachineError(
                f"no network of our own: {said.strip() or f'nothing within {_SHORT_S:g} s'}",
                remedy="run as root, or let this user make user and network namespaces "
                "(sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone); the kernel needs veth (modprobe veth)",
            )
        caller = stack.enter_context(listener.accept()[0])
        wire, words = ask(caller, ["plain", _STACK, _WIRE], _SHORT_S)
        if wire is None:
            raise MachineError(
                f"no network of our own: {words}",
                remedy="run as root; the kernel needs packet sockets (modprobe af_packet)",
            )
        yield Outside(stack.enter_context(caller), wire, holder.pid)


def ask(
    caller: socket.socket, request: Sequence[str | int | float], limit_s: float
) -> tuple[socket.socket | None, str]:
    """Have the program make a socket; return it, or why there is none."""
    caller.settimeout(limit_s + _SHORT_S)
    try:
        caller.send(json.dumps(list(request)).encode())
        words, descriptors, _, _ = socket.recv_fds(caller, _MOST, 1)
    except OSError as err:
        return None, err.strerror or str(err)
    if descriptors:
        return socket.socket(fileno=descriptors[0]), ""
    return None, words.decode(errors="replace") or "the network is gone"


def outside_argv(path: Path, addresses: Sequence[str], *, is_root: bool) -> tuple[str, ...]:
    """Return the command that holds the namespace with the stranger in it."""
    user = () if is_root else ("--user", "--map-root-user")
    hold = ("/bin/sh", "-c", _HOLD, "pytest-nixos-outside")
    program = (sys.executable, str(_PROGRAM), str(path))
    return ("unshare", *user, "--net", "--", *hold, *program, *addresses)
