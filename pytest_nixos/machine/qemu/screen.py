"""What a VM shows on its screen, as QEMU's monitor gives it."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu.qmp import QmpMonitor

__all__ = ["screendump"]

_FORMAT_UNKNOWN = "'format'"
_NO_SCREEN = "no console"


def screendump(monitor: QmpMonitor, file: Path, *, deadline: Deadline) -> None:
    """Write a VM's first screen as PNG (QMP ``screendump``, whose ``format`` is of QEMU 7.1).

    :param file: where QEMU itself may write.
    :raises MachineError: if the VM has no screen, or QEMU cannot write PNG.
    """
    try:
        monitor.execute("screendump", {"filename": str(file), "format": "png"}, deadline=deadline)
    except MachineError as err:
        if _FORMAT_UNKNOWN in err.message:
            raise MachineError(
                f"this QEMU writes no PNG: {err.message}",
                remedy="use QEMU 7.1 or newer (NixOS 22.11), built with libpng",
            ) from err
        if _NO_SCREEN in err.message:
            raise MachineError(
                f"the VM has no screen: {err.message}",
                remedy="leave it a display device (no -vga none or -nodefaults in virtualisation.qemu.options)",
            ) from err
        raise
