"""Arguments and environment for the host's run script, as pure functions.

Arguments go through the script's ``"$@"``, which survives blanks and comes last, so that they
override; ``$QEMU_OPTS`` stands before it, is split on blanks, and stays the user's.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.pace import Pace
from pytest_nixos.machine.base import NetworkCard, SecretArchive
from pytest_nixos.machine.vm.run_script import QemuVersion, RunScript

__all__ = [
    "Acceleration",
    "accelerator_argv",
    "card_ids",
    "card_socket",
    "cards_argv",
    "check_run_dir",
    "disk_image",
    "machine_argv",
    "monitor_argv",
    "monitor_socket",
    "qemu_options_name",
    "run_environment",
    "script_paths",
    "secrets_argv",
    "stand_in_socket",
]

# sockaddr_un.sun_path holds 108 bytes with its final zero, unix(7); the longest name that we give a
# socket.
_MOST_SOCKET_PATH = 107
_SOCKET_NAME_ROOM = 24
# systemd's own limit for a device or a start, and what an emulated guest gets on an idle machine.
_SYSTEMD_S = 90.0
_STREAM_NETWORKS = QemuVersion(major=7, minor=2)
_PATIENCE_S = 180.0


class Acceleration(enum.Enum):
    """How guest instructions run."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


def check_run_dir(run_dir: Path) -> None:
    """Refuse a run directory below which QEMU cannot work.

    :raises MachineError: if a socket path would be too long, or QEMU's options would be cut in two.
    """
    length = len(str(run_dir).encode()) + 1 + _SOCKET_NAME_ROOM
    if length > _MOST_SOCKET_PATH:
        raise MachineError(
            f"{run_dir}: a Unix socket below it needs {length} bytes, at most {_MOST_SOCKET_PATH} fit",
            remedy="set TMPDIR to a directory with a shorter path, such as /tmp",
        )
    if "," in str(run_dir):
        raise MachineError(
            f"{run_dir}: the run script cannot pass a path with a comma to QEMU",
            remedy="set TMPDIR to a directory without a comma in its path",
        )


def monitor_socket(run_dir: Path) -> Path:
    """Return the path of QEMU's monitor socket."""
    return run_dir / "qmp.sock"


def stand_in_socket(run_dir: Path) -> Path:
    """Return the path of the socket on which the stand-in for the internet awaits its network."""
    return run_dir / "stand-in.sock"


def disk_image(run_dir: Path) -> Path:
    """Return the path of the machine's own disk."""
    return run_dir / "disk.qcow2"


def monitor_argv(run_dir: Path) -> tuple[str, ...]:
    """Offer QEMU's monitor on a socket of this machine."""
    return ("-qmp", f"unix:{monitor_socket(run_dir)},server=on,wait=off")


def card_socket(run_dir: Path, number: int) -> Path:
    """Return where the network of a card listens for it."""
    return run_dir / f"card{number}.sock"


def card_ids(cards: Sequence[NetworkCard]) -> tuple[str, ...]:
    """Name the networks of cards as QEMU calls them."""
    return tuple(f"card{number}" for number, _ in enumerate(cards))


def cards_argv(
    run_dir: Path, cards: Sequence[NetworkCard], version: QemuVersion | None
) -> tuple[str, ...]:
    """Plug network cards into networks of ours: QEMU connects to a socket for each.

    :raises MachineError: if this QEMU has no such network (``-netdev stream`` is of 7.2).
    """
    if cards and version is not None and version < _STREAM_NETWORKS:
        raise MachineError(
            f"QEMU {version.major}.{version.minor} cannot be plugged into a network of a cluster",
            remedy="use a nixpkgs with QEMU 7.2 or newer (NixOS 23.05), or run the cluster's hosts as containers",
        )
    argv: list[str] = []
    for number, (name, card) in enumerate(zip(card_ids(cards), cards, strict=True)):
        path = card_socket(run_dir, number)
        argv += ["-netdev", f"stream,id={name},server=off,addr.type=unix,addr.path={path}"]
        argv += ["-device", f"virtio-net-pci,id=nic{number},netdev={name},mac={card.hardware}"]
    return tuple(argv)


def secrets_argv(secrets: SecretArchive | None) -> tuple[str, ...]:
    """Hand secrets to the guest as a file of QEMU's firmware configuration, where root alone reads
    them, and before anything is mounted (``-fw_cfg``, qemu(1)).
    """
    if secrets is None:
        return ()
    return ("-fw_cfg", f"name=opt/org.pytest-nixos/secrets,file={secrets.path}")


def accelerator_argv(
    acceleration: Acceleration, script: RunScript, version: QemuVersion | None, *, user_cpu: bool
) -> tuple[str, ...]:
    """Choose the accelerator and, where it must be, the processor model.

    ``-machine accel=...`` overrides the ``-enable-kvm`` that nixpkgs' ``qemu-kvm`` adds by itself;
    ``-accel`` beside it is refused by QEMU.

    :param acceleration: decided already, not ``AUTO``.
    :param user_cpu: whether ``$QEMU_OPTS`` names a processor, which then stays.
    """
    accel = ("-machine", f"accel={acceleration.value}")
    if user_cpu or acceleration is Acceleration.KVM:
        return accel
    if script.cpu == "host":
        return (*accel, "-cpu", _tcg_cpu(version))
    # A model that the host chose itself stays, the run script's default "max" may change.
    if script.cpu in (None, "max") and _corrupts_cx16(version):
        return (*accel, "-cpu", _tcg_cpu(version))
    return accel


def machine_argv(*, memory_mib: int | None, cores: int | None) -> tuple[str, ...]:
    """Override memory (MiB) and cores where asked, and end QEMU where the guest would reboot."""
    memory = () if memory_mib is None else ("-m", str(memory_mib))
    processors = () if cores is None else ("-smp", str(cores))
    # Always without a window: serial and monitor on our terminal, even if the host insists on
    # graphics.
    return (*memory, *processors, "-nographic", "-no-reboot")


def run_environment(
    run_dir: Path,
    script: RunScript,
    *,
    serial: str,
    restrict_network: bool,
    inherited: Mapping[str, str],
    added_kernel_params: Sequence[str] = (),
) -> dict[str, str]:
    """Build the run script's whole environment.

    :param serial: the guest's serial port, ``ttyS0``.
    :param restrict_network: keep the guest from reaching beyond the host machine.
    :param inherited: this process's environment; the user's QEMU variables stay and are added to.
    :param added_kernel_params: see :func:`kernel_params`.
    """
    paths = script_paths(run_dir)
    net = (inherited.get("QEMU_NET_OPTS", ""), "restrict=on" if restrict_network else "")
    kernel = (
        inherited.get("QEMU_KERNEL_PARAMS", ""),
        _console_parameter(script, serial, inherited),
        *added_kernel_params,
    )
    return {
        **inherited,
        **{name: str(path) for name, path in paths.items()},
        "USE_TMPDIR": "1",
        "QEMU_NET_OPTS": ",".join(filter(None, net)),
        "QEMU_KERNEL_PARAMS": " ".join(filter(None, kernel)),
    }


def kernel_params(*, emulated: bool, pace: Pace, boot_timeout_s: float) -> tuple[str, ...]:
    """Return what a guest's kernel is told on a machine that is slow, beside what the host
    declares; nothing on others.

    On a busy machine an emulated kernel panics with "IO-APIC + timer doesn't work!" unless told
    ``no_timer_check``, as it tells itself under KVM (arch/x86/kernel/kvm.c). systemd's own limits
    of 90 s for devices and starts are what an idle machine needs (systemd(1), kernel command line);
    they stay well below the boot's limit, so that a device that never comes is still told by
    systemd.

    :param emulated: whether TCG runs the guest.
    """
    if not emulated and pace.factor <= 1:
        return ()
    limit_s = int(min(pace.limit(_PATIENCE_S), max(_SYSTEMD_S, boot_timeout_s / 2)))
    return (
        *(("no_timer_check",) if emulated else ()),
        f"systemd.default_device_timeout_sec={limit_s}",
        f"systemd.default_timeout_start_sec={limit_s}",
    )


def script_paths(run_dir: Path) -> dict[str, Path]:
    """Name the places that the run script writes to, by the variable that tells it so."""
    return {
        "NIX_DISK_IMAGE": disk_image(run_dir),
        "TMPDIR": run_dir / "tmp",
        "SHARED_DIR": run_dir / "shared",
        "NIX_EFI_VARS": run_dir / "efi-vars.fd",
        "NIX_SWTPM_DIR": run_dir / "swtpm",
    }


def qemu_options_name(options: str, flag: str) -> bool:
    """Whether ``$QEMU_OPTS`` (split on blanks by the script) holds `flag`."""
    return flag in options.split()


def _console_parameter(script: RunScript, serial: str, inherited: Mapping[str, str]) -> str:
    """The last console= of the command line becomes /dev/console: it must be the serial port."""
    if script.console == serial or "console=" in inherited.get("QEMU_KERNEL_PARAMS", ""):
        return ""
    return f"console={serial}"


def _corrupts_cx16(version: QemuVersion | None) -> bool:
    """QEMU 7 under TCG breaks cmpxchg16b of recent kernels (oops in __kmalloc, three boots of
    five).
    """
    return version is not None and version.major == 7


def _tcg_cpu(version: QemuVersion | None) -> str:
    return "max,-cx16" if _corrupts_cx16(version) else "max"
