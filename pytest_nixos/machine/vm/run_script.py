"""The host's own run script (``bin/run-<name>-vm``): what it says about the QEMU that it will
start.

The script is nixpkgs' ``startVM`` of ``nixos/modules/virtualisation/qemu-vm.nix``; its last command
is ``exec <store path>/bin/qemu-kvm -cpu max ... $QEMU_OPTS "$@"`` (``nixos/lib/qemu-common.nix``).
Whatever cannot be found in it counts as unknown, never as an error.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pytest_nixos.errors import MachineError, NixosError
from pytest_nixos.local.process import Runner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.capabilities import BootsFrom

__all__ = [
    "QemuVersion",
    "RunScript",
    "boots_from",
    "effective_memory_mib",
    "find_run_script",
    "forwards_ports",
    "parse_run_script",
    "qemu_version",
    "restricts_network",
    "serial_console",
    "unsavable_script",
]

_VERSION_LIMIT_S = 10.0
_MOST_SCRIPT = 1 << 20
_QEMU = r"(?:[^\s\"';|&()]*/)?qemu-(?:kvm|system-[a-z0-9_]+)"
_EXEC = re.compile(rf"^\s*exec\s+[\"']?({_QEMU})\b", re.MULTILINE)
_CPU = re.compile(r"(?:^|\s)-cpu\s+[\"']?([\w.+-]+)")
_CONSOLE = re.compile(r"\bconsole=([A-Za-z]+\d*)")
_KERNEL = re.compile(r"^\s*-kernel\s", re.MULTILINE)
_RESTRICTED = re.compile(r"\brestrict=(?:on|yes|y)\b")
_VERSION = re.compile(r"version (\d+)\.(\d+)")

_MEMORY = re.compile(r"(?:^|\s)-m\s+(\S+)")
_PLAIN_MEMORY = re.compile(r"(\d+)([MmGg]?)")
# What QEMU cannot save, or what would collide with the file that we keep the memory in.
_UNSAVABLE = re.compile(
    r"(?:^|\s)(-virtfs|-fsdev|-tpmdev|-numa|-mem-path|-blockdev|-object\s+[\"']?memory-backend\S*|\S*vhost-user\S*)",
    re.MULTILINE,
)

# Serial ports of nixpkgs' qemuSerialDevice.
_SERIAL = {"x86_64": "ttyS0", "i686": "ttyS0", "aarch64": "ttyAMA0", "armv7l": "ttyAMA0"}


class QemuVersion(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Version of a QEMU program."""

    major: int
    minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScript:
    """What could be read from a run script.

    :param qemu_binary: absolute path of the QEMU program, ``None`` if the text does not tell.
    :param cpu: the last ``-cpu`` of the script, without its flags, ``None`` without one.
    :param console: the last kernel console that the script itself asks for, ``None`` without one.
    :param text: the script as it stands.
    """

    path: Path
    qemu_binary: str | None
    cpu: str | None
    console: str | None
    text: str = field(default="", repr=False, compare=False)

    @property
    def is_whole(self) -> bool:
        """Whether `text` is all of it, and was text."""
        return 0 < len(self.text) < _MOST_SCRIPT and "\ufffd" not in self.text


def find_run_script(system: Path, program: str) -> Path:
    """Return the run script inside a built package.

    :param program: its path inside the package as evaluated; empty to look for the only
        ``bin/run-*-vm``.
    :raises MachineError: if there is none, or it cannot be executed.
    """
    found = [system / program] if program else sorted(system.glob("bin/run-*-vm"))
    if len(found) != 1 or not os.access(found[0], os.X_OK):
        names = ", ".join(path.name for path in found) or "none"
        raise MachineError(
            f"{system}: expected one executable run script bin/run-*-vm, found {names}",
            remedy="build config.system.build.vm of the host again; was its store path collected as garbage?",
        )
    return found[0]


def parse_run_script(path: Path) -> RunScript:
    """Read a run script; a binary or unreadable one gives only unknowns."""
    try:
        with path.open(errors="replace") as file:
            text = file.read(_MOST_SCRIPT)
    except OSError:
        text = ""
    cpus, consoles = _CPU.findall(text), _CONSOLE.findall(text)
    return RunScript(
        path=path,
        qemu_binary=_qemu_binary(text),
        cpu=cpus[-1] if cpus else None,
        console=consoles[-1] if consoles else None,
        text=text,
    )


def boots_from(script: RunScript) -> BootsFrom:
    """Tell what chooses the generation: a script with ``-kernel`` starts its own toplevel for
    ever.
    """
    return BootsFrom.SCRIPT if _KERNEL.search(script.text) else BootsFrom.LOADER


def effective_memory_mib(
    script: RunScript, inherited: Mapping[str, str], override: int | None
) -> int | None:
    """Tell the guest's memory in MiB: ours, else what ``$QEMU_OPTS`` or the script say; ``None``
    if that is not plain.
    """
    if override is not None:
        return override
    command = script.text[max((m.start() for m in _EXEC.finditer(script.text)), default=0) :]
    for text in (inherited.get("QEMU_OPTS", ""), command):
        found = _MEMORY.findall(text)
        if found:
            return _mebibytes(found[-1])
    return None


def forwards_ports(script: RunScript, inherited: Mapping[str, str]) -> bool:
    """Whether QEMU is told to listen on ports of this machine (``virtualisation.forwardPorts``,
    on all addresses by default).
    """
    texts = (script.text, inherited.get("QEMU_OPTS", ""), inherited.get("QEMU_NET_OPTS", ""))
    return any("hostfwd=" in text for text in texts)


def restricts_network(script: RunScript) -> bool:
    """Whether QEMU is told to pass nothing on (``virtualisation.restrictNetwork``)."""
    return _RESTRICTED.search(script.text) is not None


def unsavable_script(script: RunScript, inherited: Mapping[str, str]) -> str:
    """Say why the VM that a script starts cannot be one that is saved, ``""`` if it may be."""
    found = _UNSAVABLE.search(f"{script.text} {inherited.get('QEMU_OPTS', '')}")
    return f"QEMU is started with {found[1]}" if found else ""


def qemu_version(runner: Runner, qemu_binary: str) -> QemuVersion | None:
    """Ask a QEMU program for its version; ``None`` if it does not tell."""
    try:
        answer = runner.run((qemu_binary, "--version"), deadline=Deadline.after(_VERSION_LIMIT_S))
    except NixosError:
        return None
    found = _VERSION.search(answer.stdout_text)
    return QemuVersion(major=int(found[1]), minor=int(found[2])) if found else None


def serial_console(system: str) -> str:
    """Name the guest's first serial port, for a Nix system such as ``x86_64-linux``."""
    return _SERIAL.get(system.partition("-")[0], "ttyS0")


def _mebibytes(text: str) -> int | None:
    parsed = _PLAIN_MEMORY.fullmatch(text)
    if parsed is None:
        return None
    return int(parsed[1]) * {"": 1, "M": 1, "m": 1, "G": 1024, "g": 1024}[parsed[2]]


def _qemu_binary(text: str) -> str | None:
    found = _EXEC.findall(text)
    if not found:
        return None
    path: str = found[-1]
    return path if path.startswith("/") else shutil.which(path)
