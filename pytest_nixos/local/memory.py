"""Whether the host machine has the memory for machines that are about to start."""

from __future__ import annotations

from pathlib import Path

from pytest_nixos.errors import MachineError

__all__ = [
    "HostMemoryError",
    "available_bytes",
    "check_memory",
    "leaves_half_free",
    "total_bytes",
]

_MIB = 1 << 20
# QEMU itself, its device memory and its threads.
_OVERHEAD_BYTES = 96 * _MIB


class HostMemoryError(MachineError):
    """The host machine has too little memory for a machine that is about to start."""


def check_memory(name: str, *, guest_bytes: int, available: int | None = None) -> None:
    """Refuse to start a clone whose guest could not write to all the memory that it uses.

    :param guest_bytes: what the guest had in use when it was saved.
    :param available: bytes, asked of the kernel unless given.
    :raises HostMemoryError: with both figures.
    """
    has = available_bytes() if available is None else available
    needs = guest_bytes + _OVERHEAD_BYTES
    if has is not None and has < needs:
        raise HostMemoryError(
            f"{name}: needs {needs // _MIB} MiB of memory, this machine has {has // _MIB} MiB available",
            remedy="run fewer machines at once (pytest -n), end other programs, or give the guest less memory",
        )


def available_bytes(meminfo: Path = Path("/proc/meminfo"), *, swap: bool = False) -> int | None:
    """Return what the kernel thinks can be had without swapping (``MemAvailable``), ``None`` if
    it does not tell.

    :param swap: count free swap too.
    """
    kib = _entries(meminfo)
    if "MemAvailable" not in kib:
        return None
    return (kib["MemAvailable"] + (kib.get("SwapFree", 0) if swap else 0)) * 1024


def leaves_half_free(wanted: int = 0) -> bool:
    """Whether half of this machine's memory stays free beside what is wanted, in bytes; not where the
    kernel does not tell.
    """
    available, total = available_bytes(), total_bytes()
    return available is not None and total is not None and 2 * (available - wanted) >= total


def total_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return all memory of this machine (``MemTotal``), ``None`` if the kernel does not tell."""
    kib = _entries(meminfo)
    return kib["MemTotal"] * 1024 if "MemTotal" in kib else None


def _entries(meminfo: Path) -> dict[str, int]:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return {}
    return {
        words[0].rstrip(":"): int(words[1])
        for words in map(str.split, lines)
        if len(words) > 1 and words[1].isdigit()
    }
