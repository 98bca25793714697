"""Ports of this machine that QEMU's user network passes on to a guest, for a while."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from ipaddress import IPv4Address

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu.qmp import QmpMonitor

__all__ = ["GATEWAY", "forwarded_port"]

#: What a guest of QEMU's user network takes for the sender; qemu(1), "-netdev user".
GATEWAY = "10.0.2.2"
_HERE = "127.0.0.1"
_UNDO_S = 10.0


@contextlib.contextmanager
def forwarded_port(
    monitor: QmpMonitor, network: str, guest: IPv4Address, port: int, *, deadline: Deadline
) -> Iterator[int]:
    """Let QEMU listen on a free port of its own loopback and pass connections on to a guest's TCP
    port, until the context ends.

    :param network: id of the user network.
    :return: the port on 127.0.0.1.
    :raises MachineError: if there is no such user network, or QEMU cannot listen.
    """
    rule = f"tcp:{_HERE}:0-{guest}:{port}"
    said = _order(monitor, f"hostfwd_add {network} {rule}", deadline)
    listening = _order(monitor, "info usernet", deadline)
    # Columns: protocol and state, descriptor, source address and port, destination and port.
    line = re.compile(
        rf"TCP\[HOST_FORWARD\]\s+\S+\s+{re.escape(_HERE)}\s+(\d+)\s+{re.escape(str(guest))}\s+{port}\s"
    )
    found = [int(number) for number in line.findall(listening)]
    if said or not found:
        raise MachineError(
            f"no way to port {port} of the guest through network {network}: {said or 'QEMU tells none'}",
            remedy="the host's VM needs QEMU's user network, as qemu-vm.nix gives it",
        )
    here = found[-1]
    try:
        yield here
    finally:
        with contextlib.suppress(MachineError):  # it went with QEMU
            _order(monitor, f"hostfwd_remove {network} tcp:{_HERE}:{here}", Deadline.after(_UNDO_S))


def _order(monitor: QmpMonitor, line: str, deadline: Deadline) -> str:
    # QMP has no command of its own for it.
    said = monitor.execute("human-monitor-command", {"command-line": line}, deadline=deadline)
    return str(said).strip()
