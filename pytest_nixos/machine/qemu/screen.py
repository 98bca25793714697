"""What a VM shows on its screen, as QEMU's monitor gives it."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.picture import Picture
from pytest_nixos.machine.qemu.qmp import QmpMonitor

__all__ = ["screendump"]

_NO_SCREEN = "no console"
# Of an 8K screen; what QEMU writes there is not trusted.
_MOST_BYTES = 100 << 20


def screendump(monitor: QmpMonitor, file: Path, *, deadline: Deadline) -> Picture:
    """Return what a VM's first screen shows (QMP ``screendump``).

    :param file: where QEMU itself may write; is made, and left to the caller.
    :raises MachineError: if the VM has no screen.
    """
    try:
        monitor.execute("screendump", {"filename": str(file)}, deadline=deadline)
        # Never what a link in its place leads to.
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as written:
            return Picture.from_ppm(written.read(_MOST_BYTES))
    except MachineError as err:
        if _NO_SCREEN in err.message:
            raise MachineError(
                f"the VM has no screen: {err.message}",
                remedy="leave it a display device (no -vga none or -nodefaults in virtualisation.qemu.options)",
            ) from err
        raise
    except (OSError, ValueError) as err:
        raise MachineError(
            f"{file}: QEMU's picture of the screen cannot be read: {err}",
            remedy="look at the room where run directories lie ($TMPDIR)",
        ) from err
