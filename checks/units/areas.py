"""File systems and swap areas that are not there: what mends each."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["idle_swap", "remedy_of_missing"]


def idle_swap(declared: Sequence[str], used: Sequence[str]) -> list[str]:
    """Return the declared swap areas that are not in use.

    :param declared: sources of the file system table, files and devices by any name.
    :param used: paths as the kernel tells them, devices by their own name: which of several devices
        is idle cannot be told, so that all are returned where one is.
    """
    files = [source for source in declared if _is_file(source)]
    idle = [source for source in files if source not in used]
    if len(idle) < len(declared) - len(used):
        idle += [source for source in declared if source not in files and source not in used]
    return idle


def remedy_of_missing(paths: Sequence[str], swap: Sequence[str]) -> str:
    """Return what mends file systems and swap areas that are not there.

    NixOS makes a swap file whose ``size`` is declared (nixos/modules/config/swap.nix), and none else.

    :param paths: where the file systems should be mounted.
    :param swap: sources of the swap areas.
    """
    lines = []
    if paths:
        lines.append("# Correct the device, or take the entry away:")
        lines += [
            f'fileSystems."{path}".device = lib.mkForce "/dev/disk/by-label/data";'
            for path in paths
        ]
    for source in swap:
        if _is_file(source):
            lines += [
                "# NixOS makes a swap file of which swapDevices says the size, in MiB; in place of its entry there:",
                f'# {{ device = "{source}"; size = 4096; }}',
            ]
        else:
            lines.append(
                f"# swapDevices names {source}: correct it (blkid lists what there is), or make it: mkswap {source}"
            )
    return "\n".join(lines)


def _is_file(source: str) -> bool:
    return source.startswith("/") and not source.startswith("/dev/")
