"""Which places of a host whose root is in memory survive a reboot, as its ``fileSystems`` say."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pytest_nixos import HostConfig

__all__ = ["Places", "places_of"]

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
#: The VM's own, and what lies there in memory on every host.
_NOT_THE_HOSTS = ("/nix", "/tmp", "/run", "/proc", "/sys", "/dev", "/boot", "/efi")  # noqa: S108 - of a guest
# Where services keep what they must not forget, and people what they wrote.
_OFTEN_FORGOTTEN = ("/", "/etc", "/root", "/srv", "/var/lib", "/var/log")


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Directories of a host.

    :param kept: on a disk, or bound to one.
    :param forgotten: in memory.
    """

    kept: tuple[str, ...]
    forgotten: tuple[str, ...]


def places_of(host: HostConfig) -> Places:
    """Return where a file survives a reboot, and where it is gone after one; nothing is forgotten
    where the root lies on a disk.
    """
    mounts = host.file_systems
    points = [p for p in sorted(mounts) if not _within(p, _NOT_THE_HOSTS) and p != "/"]
    kept = tuple(p for p in points if _survives(p, host) and "ro" not in mounts[p].options)
    if _survives("/", host):
        return Places(kept=kept, forgotten=())
    forgotten = [p for p in points if not _survives(p, host)]
    forgotten += [p for p in _OFTEN_FORGOTTEN if not _survives(p, host)]
    return Places(kept=kept, forgotten=tuple(dict.fromkeys(forgotten)))


def _survives(path: str, host: HostConfig) -> bool:
    """Whether what lies at a path is on a disk."""
    mounts = host.file_systems
    above = [p for p in mounts if _within(path, (p,))]
    if not above:
        return True
    entry = mounts[max(above, key=len)]
    if {"bind", "rbind"} & set(entry.options):
        source = entry.device or ""
        return source != entry.mount_point and _survives(source, host)
    return entry.fs_type not in _IN_MEMORY


def _within(path: str, tops: Sequence[str]) -> bool:
    return any(path == top or path.startswith(f"{top.rstrip('/')}/") for top in tops)
