"""Filters that are put between a running VM and its disks, and taken out again, by QEMU's monitor.

A guest's device is pointed at another node by ``qom-set`` of its property ``drive`` (QEMU 6.0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import disk_id
from pytest_nixos.machine.qemu.qmp import QmpMonitor

__all__ = ["GuestDisk", "failing", "logging_to", "put_filter", "take_filter", "writable_disks"]

_EIO = 5
_FIRST = "vda"
# block.c, create_tmp_file: its name, told in QEMU's own words for an image that is no plain file.
_TEMPORARY = re.compile(r'^json:.*"filename": "[^"]*/vl\.\w{6}"')


class GuestDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that a VM can write.

    :param name: by which its guest first knew it (``vda``, ``sda``), else QEMU's.
    :param device: of QEMU, as ``qom-set`` names it.
    :param node: of the block layer, on which the device is without a filter.
    :param file: its image.
    :param image_format: as QEMU calls it (``qcow2``).
    """

    name: str
    device: str
    node: str
    file: Path
    image_format: str

    @property
    def is_temporary(self) -> bool:
        """Whether QEMU keeps what is written to it in a file of its own, which ends with it
        (``snapshot=on``), as nixpkgs has it for an image of the store.
        """
        return _TEMPORARY.search(str(self.file)) is not None

    @property
    def filter(self) -> str:
        """Name of the node that is put before it."""
        return f"pytest-nixos-filter-{self.name}"


def writable_disks(
    monitor: QmpMonitor, first: Path, *, deadline: Deadline
) -> tuple[GuestDisk, ...]:
    """List what QEMU calls a disk of the guest that takes writes; firmware variables are none.

    :param first: the image of ``vda``.
    """
    found = []
    for block in monitor.execute("query-block", deadline=deadline):
        inserted, device = block.get("inserted"), str(block.get("qdev", ""))
        called = str(block.get("device", ""))
        if not inserted or inserted.get("ro") or not device or called.startswith("pflash"):
            continue
        file = Path(str(inserted["file"]))
        own = next((p for p in device.split("/") if p.startswith(disk_id(""))), "")
        name = own.removeprefix(disk_id("")) or (_FIRST if file == first else called)
        found.append(
            GuestDisk(
                name=name,
                device=device,
                node=str(inserted["node-name"]),
                file=file,
                image_format=str(inserted["drv"]),
            )
        )
    return tuple(found)


def logging_to(log: Path) -> Mapping[str, object]:
    """Return the filter that writes down each write and flush as Linux' dm-log-writes does.

    :param log: an empty file.
    """
    # The log has to outlive QEMU, not this machine.
    file = {"driver": "file", "filename": str(log), "cache": {"no-flush": True}}
    return {"driver": "blklogwrites", "log": file}


def failing(kinds: Sequence[str]) -> Mapping[str, object]:
    """Return the filter by which operations end with EIO.

    :param kinds: ``"read"``, ``"write"``, ``"flush"``...
    """
    rules = [{"event": "none", "iotype": kind, "errno": _EIO} for kind in kinds]
    return {"driver": "blkdebug", "inject-error": rules}


def put_filter(
    monitor: QmpMonitor, disk: GuestDisk, options: Mapping[str, object], *, deadline: Deadline
) -> None:
    """Put a filter before a disk.

    :raises MachineError: if QEMU refuses; the disk is as before then.
    """
    below = "image" if options["driver"] == "blkdebug" else "file"
    node = {**options, "node-name": disk.filter, below: disk.node}
    monitor.execute("blockdev-add", node, deadline=deadline)
    try:
        _point(monitor, disk, disk.filter, deadline)
    except MachineError:
        monitor.execute("blockdev-del", {"node-name": disk.filter}, deadline=deadline)
        raise


def take_filter(monitor: QmpMonitor, disk: GuestDisk, *, deadline: Deadline) -> None:
    """Take a disk's filter out; its device is on its own node again."""
    _point(monitor, disk, disk.node, deadline)
    monitor.execute("blockdev-del", {"node-name": disk.filter}, deadline=deadline)


def _point(monitor: QmpMonitor, disk: GuestDisk, node: str, deadline: Deadline) -> None:
    order = {"path": disk.device, "property": "drive", "value": node}
    monitor.execute("qom-set", order, deadline=deadline)
