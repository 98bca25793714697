"""qemu-img of the host's own closure, run for one image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_nixos.errors import MachineError, NixosError
from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline

__all__ = ["run_qemu_img"]


def run_qemu_img(runner: Runner, argv: Sequence[str], image: Path, *, limit_s: float) -> None:
    """Run a command that makes an image.

    :param image: what it makes, for messages.
    :raises MachineError: if it fails, or does not end within `limit_s` seconds.
    """
    try:
        ended = runner.run(argv, deadline=Deadline.after(limit_s))
    except NixosError as err:
        raise MachineError(err.message, remedy=err.remedy) from err
    if ended.exit_status != 0:
        raise MachineError(
            f"{image}: {ended.stderr_text.strip()[:300]}",
            remedy="look at the room where run directories lie ($TMPDIR)",
        )
