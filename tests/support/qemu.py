"""QEMU for tests that start it without a guest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pytest_nixos.machine.vm.run_script import find_run_script, parse_run_script

__all__ = ["qemu_program"]


def qemu_program() -> str | None:
    """Return the QEMU of the VM that ``./dev test`` has built, else the one on PATH, ``None`` where
    there is neither.
    """
    system = os.environ.get("PYTEST_NIXOS_VM_SYSTEM")
    if system:
        return parse_run_script(find_run_script(Path(system), "")).qemu_binary
    return shutil.which("qemu-system-x86_64")
