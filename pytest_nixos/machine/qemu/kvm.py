"""Is KVM usable? Found out by running instructions with the very QEMU and processor that will be
used.

``/dev/kvm`` may exist, open and even make virtual machines, and yet a guest hangs or QEMU aborts
("failed to set MSR"), as on nested and para-virtualised hosts; ``-accel kvm -accel tcg`` does not
fall back then.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path

import msgspec

from pytest_nixos.errors import ToolMissingError
from pytest_nixos.local.dirs import cache_directory, is_private, make_private
from pytest_nixos.local.pace import Pace
from pytest_nixos.local.process import ProcessTimeout, Runner
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.qemu.kvm_rom import EXIT_USABLE, rom_image

__all__ = ["KvmProbe", "KvmVerdict", "VerdictCache", "rom_argv", "verdict_of"]

# linux/kvm.h: _IO(KVMIO, 0x00) and _IO(KVMIO, 0x01).
_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_KVM_API_VERSION = 12
# A usable KVM answers in some 50 ms; one that hangs must not cost a second.
_LIMIT_S = 0.9
_MOST_REASON = 300


class KvmVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether KVM can be used, and why not (or how that was found out)."""

    usable: bool
    reason: str


class VerdictCache:
    """Keeps the verdicts of one boot of this machine, in a private directory.

    :param directory: the cache directory of this kind; one folder per boot id below it.
    :param boot_id: ``/proc/sys/kernel/random/boot_id``.
    """

    def __init__(self, directory: Path, boot_id: str) -> None:
        self._directory = directory / boot_id

    @classmethod
    def of_user(cls) -> VerdictCache:
        """Use ``$XDG_CACHE_HOME/pytest-nixos/kvm`` (``~/.cache`` without that variable)."""
        boot_id = _read_text(Path("/proc/sys/kernel/random/boot_id")).strip() or "unknown"
        return cls(cache_directory("kvm"), boot_id)

    def read(self, key: str) -> KvmVerdict | None:
        """Return the verdict kept under `key`, if nobody else can have written it and it is one."""
        path = self._path(key)
        try:
            if not is_private(path):
                return None
            match json.loads(path.read_text()):
                case {"usable": bool(usable), "reason": str(reason)}:
                    return KvmVerdict(usable=usable, reason=reason)
        except (OSError, ValueError, RecursionError):
            pass
        return None

    def write(self, key: str, verdict: KvmVerdict) -> None:
        """Keep `verdict`; a cache that cannot be written costs only time."""
        with contextlib.suppress(OSError):
            make_private(self._directory)
            with tempfile.NamedTemporaryFile("w", dir=self._directory, delete=False) as file:
                json.dump({"usable": verdict.usable, "reason": verdict.reason}, file)
            Path(file.name).replace(self._path(key))

    def _path(self, key: str) -> Path:
        return self._directory / hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


class KvmProbe:
    """Judges KVM for one QEMU program and processor model.

    :param device: KVM's device node.
    :param pace: how slow this machine is.
    """

    def __init__(
        self,
        runner: Runner,
        cache: VerdictCache,
        *,
        device: Path = Path("/dev/kvm"),
        pace: Pace | None = None,
    ) -> None:
        self._runner = runner
        self._cache = cache
        self._device = device
        self._limit_s = (pace or Pace()).limit(_LIMIT_S)

    def probe(self, qemu_binary: str, *, cpu: str = "max") -> KvmVerdict:
        """Judge whether `qemu_binary` can run a guest with KVM and processor model `cpu`.

        The device and the right to use it are looked at each time; the run of QEMU is judged once
        per boot of this machine, unless it hung: that may have been load.
        """
        refusal = device_refusal(self._device)
        if refusal is not None:
            return KvmVerdict(usable=False, reason=refusal)
        if not _is_x86(qemu_binary):
            return KvmVerdict(usable=True, reason=f"{self._device} makes virtual machines")
        key = f"{os.path.realpath(qemu_binary)}\0{_mtime(qemu_binary)}\0{cpu}"
        known = self._cache.read(key)
        if known is not None:
            return known
        verdict = self._run(qemu_binary, cpu)
        if verdict is None:
            return KvmVerdict(
                usable=False,
                reason=f"a guest with -cpu {cpu} did not run within {self._limit_s:g} s",
            )
        self._cache.write(key, verdict)
        return verdict

    def _run(self, qemu_binary: str, cpu: str) -> KvmVerdict | None:
        with tempfile.TemporaryDirectory(prefix="nixos-kvm-") as directory:
            rom = Path(directory) / "long-mode.rom"
            rom.write_bytes(rom_image())
            try:
                ended = self._runner.run(
                    rom_argv(qemu_binary, rom, cpu),
                    deadline=Deadline.after(self._limit_s),
                    cwd=Path(directory),
                )
            except ProcessTimeout:
                return None
            except ToolMissingError as err:
                return KvmVerdict(usable=False, reason=err.message)
        return verdict_of(ended.exit_status, ended.stderr_text)


def rom_argv(qemu_binary: str, rom: Path, cpu: str) -> tuple[str, ...]:
    """Build the command that runs the ROM; the shell keeps QEMU's abort from leaving a core
    file.
    """
    qemu = [qemu_binary, "-accel", "kvm", "-cpu", cpu, "-M", "pc", "-m", "16"]
    quiet = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    device = ["-bios", str(rom), "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    return ("sh", "-c", 'ulimit -c 0; exec "$@"', "sh", *qemu, *quiet, *device)


def verdict_of(exit_status: int, stderr: str) -> KvmVerdict:
    """Judge how QEMU ended after running the ROM."""
    if exit_status == EXIT_USABLE:
        return KvmVerdict(usable=True, reason="a guest ran in long mode")
    said = next((line for line in stderr.splitlines() if line.strip()), "QEMU said nothing")
    ended = f"signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"
    return KvmVerdict(usable=False, reason=f"{said[:_MOST_REASON]} ({ended})")


def device_refusal(device: Path) -> str | None:
    """Say why KVM's device cannot be used at all, ``None`` if it makes virtual machines."""
    try:
        handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return f"{device} does not exist"
    except PermissionError:
        return f"{device}: no permission"
    except OSError as err:
        return f"{device}: {err.strerror}"
    try:
        if fcntl.ioctl(handle, _KVM_GET_API_VERSION) != _KVM_API_VERSION:
            return f"{device}: not the KVM interface"
        os.close(fcntl.ioctl(handle, _KVM_CREATE_VM))
    except OSError as err:
        return f"{device}: makes no virtual machine: {err.strerror}"
    finally:
        os.close(handle)
    return None


def _is_x86(qemu_binary: str) -> bool:
    name = Path(qemu_binary).name
    if name.startswith("qemu-system-"):
        return name in {"qemu-system-x86_64", "qemu-system-i386"}
    return platform.machine() in {"x86_64", "i686"}


def _mtime(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:
        return 0


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
