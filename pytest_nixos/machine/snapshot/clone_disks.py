"""The disks of a clone: overlays over the snapshot's, made by the qemu-img of the host's own
closure.

The first empty overlay is kept beside its disk: a copy of it costs a hundredth of what the program does.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.dirs import make_private
from pytest_nixos.local.process import Runner
from pytest_nixos.machine.disks.qemu_img import run_qemu_img
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
            _make_overlay(runner, source, target, qemu_img=qemu_img)


def overlay_argv(qemu_img: str, source: Path, target: Path) -> tuple[str, ...]:
    """Build the command that makes an empty overlay over `source`."""
    return (
        *(qemu_img, "create", "-q"),
        *("-f", "qcow2"),
        *("-F", "qcow2"),
        *("-b", str(source)),
        str(target),
    )


def _make_overlay(runner: Runner, source: Path, target: Path, *, qemu_img: str) -> None:
    # It holds the path of its disk: a snapshot that was moved needs another one.
    place = hashlib.sha256(str(source).encode(errors="surrogateescape")).hexdigest()[:16]
    kept = source.with_name(f"{source.name}.empty-{place}")
    if kept.exists():
        _copy(kept, target)
        return
    run_qemu_img(runner, overlay_argv(qemu_img, source, target), target, limit_s=_LIMIT_S)
    with contextlib.suppress(OSError):  # the next clone tries it again
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as draft:
            draft.write(target.read_bytes())
        Path(draft.name).rename(kept)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
        target.chmod(0o600)
    except OSError as err:
        raise MachineError(
            f"{target}: {err.strerror}",
            remedy="look at the room where run directories lie ($TMPDIR)",
        ) from err
