"""Turn what a console tells into one :class:`BootError` that names the cause and what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pytest_nixos.errors import BootError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot_signs import BootPhase, Trouble
from pytest_nixos.machine.console import Console

__all__ = ["ended_error", "explained", "fatal_error", "late_error", "remedy_for"]

_TAIL = 40
_MOST_TROUBLES = 5

_REMEDIES = {
    "kernel panic": (
        "read the panic's first line: a missing or killed init points to the root file system or to the "
        "toplevel, a device to boot.initrd.availableKernelModules"
    ),
    "out of memory": "give the machine more memory: virtualisation.vmVariant.virtualisation.memorySize",
    "root device not found": (
        "compare fileSystems of the host with the disks that its VM has (virtualisation.fileSystems)"
    ),
    "stage 1 failed": (
        "compare fileSystems and boot.initrd of the host with the disks that its VM has; "
        "virtualisation.fileSystems overrides them in the VM alone"
    ),
    "file system check failed": "the machine's disk is new in each run: look for a file system that the host makes",
    "emergency mode": (
        "look above for the unit that failed, often a mount: declare it nofail or override "
        "virtualisation.fileSystems for the VM"
    ),
    "rescue mode": "look for systemd.unit=rescue.target or a failed unit that leads to it",
    "systemd crashed": "look at systemd's own lines above; report it if the host's config is sound",
    "stuck unit": "give the unit a TimeoutStartSec, or keep it from starting in the VM (virtualisation.vmVariant)",
    "host machine: disk full": "free space where the run directory lies, or set TMPDIR to another disk",
    "host machine: address in use": (
        "another program has a port that the host forwards (virtualisation.forwardPorts, QEMU_NET_OPTS)"
    ),
    "host machine: out of memory": "lower the machine's memory or run fewer machines at once",
    "KVM unusable": "run with TCG, or repair KVM on this machine; `python -m pytest_nixos doctor` tells more",
    "waits for a passphrase": "nobody can type it here: leave the encrypted disk out of virtualisation.fileSystems",
    "guest rebooted": "look above for what rebooted it during the boot",
    "guest powered off": "look above for what powered it off during the boot",
    "QEMU was killed": (
        "find out who killed QEMU on this machine: a person, a job limit, or the kernel for want of memory"
    ),
    "QEMU was told to end": "find out who ended QEMU on this machine",
}
_DEFAULT_REMEDY = "read the console lines above for the first thing that went wrong"


def fatal_error(name: str, console: Console, trouble: Trouble) -> BootError:
    """Explain a boot that cannot succeed any more."""
    earlier = [t for t in _others(console) if t.kind != trouble.kind]
    return BootError(
        f"{name}: {trouble.kind} {_where(console)}: {trouble.text}{_listed(earlier)}",
        remedy=remedy_for(trouble.kind, *(t.kind for t in earlier)),
        state=trouble.kind,
        console_tail=console.tail(_TAIL),
    )


def ended_error(name: str, console: Console, end_words: str, end_kind: str) -> BootError:
    """Explain a machine whose process ended before its root command channel answered."""
    fatal = console.fatal_trouble
    if fatal is not None:
        return fatal_error(name, console, fatal)
    known = _others(console)
    cause = next((t for t in reversed(known) if t.kind in _REMEDIES), None)
    kind = end_kind if cause is None else cause.kind
    return BootError(
        f"{name}: QEMU ended {end_words} {_where(console)}{_listed(known)}",
        remedy=remedy_for(kind),
        state=kind,
        console_tail=console.tail(_TAIL),
    )


def late_error(name: str, console: Console, what: str, limit_s: float) -> BootError:
    """Explain a machine that is still alive but was not ready in time."""
    job = console.slow_job
    waiting = f"; systemd reported last: {job.unit} ({job.limit_words})" if job else ""
    known = _others(console)
    return BootError(
        f"{name}: {what} after {limit_s:g} s; the boot stands {_where(console)}{waiting}{_listed(known)}",
        remedy=remedy_for("stuck unit" if job else "", *(t.kind for t in known))
        + ", or raise --nixos-boot-timeout if the machine is only slow",
        state="stuck unit" if job else f"not ready {console.phase.where}",
        console_tail=console.tail(_TAIL),
    )


@contextlib.contextmanager
def explained(
    name: str,
    console: Console,
    what: str,
    deadline: Deadline,
    *,
    ended: Callable[[], object],
    check: Callable[[], None],
) -> Iterator[None]:
    """Turn a broken or silent channel during a boot into the boot error that caused it.

    :param ended: waits a moment for the machine's end, which comes after that of its channel.
    :param check: raises if the machine ended or its boot cannot succeed any more.
    """
    try:
        yield
    except TransportError as err:
        ended()
        check()
        if deadline.expired:
            raise late_error(name, console, what, deadline.limit_s) from err
        raise BootError(
            f"{name}: {what}: {err.message}",
            remedy=err.remedy,
            state="channel broken",
            console_tail=console.tail(_TAIL),
        ) from err


def remedy_for(*kinds: str) -> str:
    """Return the remedy of the first kind that has one; root causes win over what follows from them."""
    ranked = sorted(kinds, key=lambda kind: kind not in ("root device not found", "out of memory"))
    return next((_REMEDIES[kind] for kind in ranked if kind in _REMEDIES), _DEFAULT_REMEDY)


def _others(console: Console) -> list[Trouble]:
    """The troubles that did not end the boot, told apart by where they happened."""
    return [_located(t, console) for t in tuple(console.troubles) if not t.fatal]


def _located(trouble: Trouble, console: Console) -> Trouble:
    # Before the guest's first word only the run script's own programs (mkfs, qemu-img) can complain.
    if trouble.kind == "no space left" and console.phase is BootPhase.STARTED:
        return Trouble(kind="host machine: disk full", text=trouble.text, fatal=False)
    return trouble


def _where(console: Console) -> str:
    return f"{console.phase.where}, {console.elapsed_s:.0f} s after its start"


def _listed(troubles: list[Trouble]) -> str:
    return "".join(f"\n  {t.kind}: {t.text}" for t in troubles[-_MOST_TROUBLES:])
