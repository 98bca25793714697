"""Disks that are taken out of a running VM and put back, by QEMU's monitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.capabilities import PulledDisk, disk_id
from pytest_nixos.machine.qemu.qmp import QmpMonitor

__all__ = ["plug_disk", "pull_disk"]

_ORDER_S = 10.0
_INTERVAL_S = 0.05


def pull_disk(monitor: QmpMonitor, disk: str) -> PulledDisk:
    """Take a SCSI disk out at once, whatever the guest does with it (QMP ``device_del``).

    :param disk: by the name that the kernel first gave it.
    :raises MachineError: if the VM has no such disk, or keeps it.
    """
    deadline = Deadline.after(_ORDER_S)
    found = _attached(monitor, deadline)
    block = found.get(disk_id(disk))
    if block is None:
        known = ", ".join(sorted(i.removeprefix(disk_id("")) for i in found)) or "none"
        raise MachineError(
            f"the VM has no disk {disk} that could be pulled; there are: {known}",
            remedy="pull a SCSI disk (sda, sdb, ...) of a VM with the host's own disks (--nixos-disks declared)",
        )
    inserted: Mapping[str, Any] = block["inserted"]
    monitor.execute("device_del", {"id": disk_id(disk)}, deadline=deadline)
    gone = poll(
        lambda: True if disk_id(disk) not in _attached(monitor, deadline) else None,
        deadline=deadline,
        interval_s=_INTERVAL_S,
    )
    if gone is None:
        raise MachineError(
            f"the VM keeps its disk {disk}", remedy="look at the machine's console for why"
        )
    nodes = monitor.execute("query-named-block-nodes", {"flat": True}, deadline=deadline)
    # What a -drive made goes with its device; a node that was put back stays.
    if any(node.get("node-name") == _node(disk) for node in nodes):
        monitor.execute("blockdev-del", {"node-name": _node(disk)}, deadline=deadline)
    return PulledDisk(disk=disk, file=str(inserted["file"]), image_format=str(inserted["drv"]))


def plug_disk(monitor: QmpMonitor, pulled: PulledDisk) -> None:
    """Put a disk back, as it is.

    :raises MachineError: if QEMU refuses.
    """
    deadline = Deadline.after(_ORDER_S)
    node = _node(pulled.disk)
    image = {"driver": "file", "filename": pulled.file}
    monitor.execute(
        "blockdev-add",
        {"node-name": node, "driver": pulled.image_format, "file": image},
        deadline=deadline,
    )
    monitor.execute(
        "device_add",
        {
            "driver": "scsi-hd",
            "id": disk_id(pulled.disk),
            "drive": node,
            "serial": pulled.disk,
        },
        deadline=deadline,
    )


def _node(disk: str) -> str:
    return f"pytest-nixos-again-{disk}"


def _attached(monitor: QmpMonitor, deadline: Deadline) -> dict[str, Mapping[str, Any]]:
    """Return the disks that can be pulled, by the ids of their devices."""
    found = {}
    for block in monitor.execute("query-block", deadline=deadline):
        device = str(block.get("qdev", "")).split("/")
        for name in device:
            if name.startswith(disk_id("")) and block.get("inserted"):
                found[name] = block
    return found
