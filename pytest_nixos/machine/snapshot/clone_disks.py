"""The disks of a clone: overlays over the snapshot's, made by the qemu-img of the host's own
closure.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pytest_nixos.errors import MachineError, NixosError
from pytest_nixos.local.dirs import make_private
from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.snapshot.clone import Disk, DiskKind

__all__ = ["make_disks", "overlay_argv"]

_LIMIT_S = 20.0


def make_disks(
    runner: Runner, disks: Sequence[Disk], *, qemu_img: str, snapshot: Path, run_dir: Path
) -> None:
    """Make the disks of a clone in its run directory.

    :param qemu_img: the program that makes overlays.
    :raises MachineError: if one cannot be made.
    """
    for disk in disks:
        source, target = snapshot / disk.name, run_dir / disk.name
        make_private(target.parent)
        if disk.kind is DiskKind.COPY:
            _copy(source, target)
        elif disk.kind is DiskKind.OVERLAY:
            _run(runner, overlay_argv(qemu_img, source, target))


def overlay_argv(qemu_img: str, source: Path, target: Path) -> tuple[str, ...]:
    """Build the command that makes an empty overlay over `source`."""
    return (
        *(qemu_img, "create", "-q"),
        *("-f", "qcow2"),
        *("-F", "qcow2"),
        *("-b", str(source)),
        str(target),
    )


def _run(runner: Runner, argv: Sequence[str]) -> None:
    try:
        ended = runner.run(argv, deadline=Deadline.after(_LIMIT_S))
    except NixosError as err:
        raise MachineError(err.message, remedy=err.remedy) from err
    if ended.exit_status != 0:
        raise MachineError(
            f"{argv[-1]}: {ended.stderr_text.strip()[:300]}",
            remedy="look at the room where run directories lie ($TMPDIR)",
        )


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
        target.chmod(0o600)
    except OSError as err:
        raise MachineError(
            f"{target}: {err.strerror}",
            remedy="look at the room where run directories lie ($TMPDIR)",
        ) from err
