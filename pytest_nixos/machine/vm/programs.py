"""Programs that a VM needs beside its QEMU: the host's own closure has them, whatever is
installed on this machine.

nixpkgs' run script makes its disk with ``${qemu}/bin/qemu-img``
(``nixos/modules/virtualisation/qemu-vm.nix``), so that the program is built with the VM. The
command line of a running QEMU does not tell where it is: a wrapper may have started it by another
name, or by the dynamic loader.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.machine.vm.run_script import RunScript

__all__ = ["NO_QEMU_IMG", "find_qemu_img"]

NO_QEMU_IMG = (
    "no qemu-img in the host's closure nor on PATH, and clones need it for their disks "
    "(Debian and Ubuntu: apt install qemu-utils; Fedora: dnf install qemu-img)"
)

_QEMU_IMG = re.compile(r"(/[^\s\"'`;|&()$]*/qemu-img)(?![\w.-])")


def find_qemu_img(script: RunScript) -> str | None:
    """Return the path of the qemu-img that fits a VM, ``None`` if there is none."""
    found = (path for path in _candidates(script) if os.access(path, os.X_OK))
    return next(found, None) or shutil.which("qemu-img")


def _candidates(script: RunScript) -> Iterator[str]:
    yield from dict.fromkeys(_QEMU_IMG.findall(script.text))
    if script.qemu_binary is not None:
        yield str(Path(script.qemu_binary).parent / "qemu-img")
        yield str(Path(os.path.realpath(script.qemu_binary)).parent / "qemu-img")
