"""``pytest-nixos doctor``: what this machine can do."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator

from pytest_nixos import __version__
from pytest_nixos.cli.command import Commands
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.store import Nix

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Declare the command."""
    doctor = commands.add_parser("doctor", help="tell what this machine can do")
    doctor.set_defaults(command=_doctor)


def _doctor(_options: argparse.Namespace) -> Iterator[str]:
    yield f"pytest-nixos {__version__}, Python {sys.version.split()[0]}"
    nix = shutil.which("nix")
    version = Nix(runner=SubprocessRunner()).version() if nix else ""
    yield f"nix: {version or 'not on PATH; containers and VMs need it'}"
    yield f"root: {'yes' if os.geteuid() == 0 else 'no; containers need it, VMs do not'}"
    nspawn = shutil.which("systemd-nspawn")
    yield f"systemd-nspawn: {nspawn or 'not on PATH; containers need it'}"
    yield from _kvm()


def _kvm() -> Iterator[str]:
    from pytest_nixos.machine.qemu.kvm import KvmProbe, VerdictCache

    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        yield "KVM: probed with the host's own QEMU at the first boot (no QEMU on PATH, none is needed)"
        return
    verdict = KvmProbe(SubprocessRunner(), VerdictCache.of_user()).probe(qemu)
    yield f"KVM: {'works' if verdict.usable else f'does not work: {verdict.reason}'}"
