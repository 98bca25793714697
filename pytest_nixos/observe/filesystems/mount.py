"""Mounts, as one process sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.text import unescape_octal

__all__ = [
    "FileSystemEntry",
    "Mount",
    "MountTable",
    "filesystem_table",
    "mounts",
    "parse_fstab",
    "parse_mountinfo",
]

_READ = r"""printf '%s\n' "$(</proc/self/mountinfo)" """
# /run/systemd/inaccessible/dir; in a container /run/host/inaccessible/dir.
_INACCESSIBLE = re.compile(r"/inaccessible/(?:dir|reg|chr|blk|fifo|sock)$")


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``/proc/<pid>/mountinfo``.

    :param root: path inside the file system that is mounted here; ``/`` but for bind mounts.
    :param options: of this mount.
    :param super_options: of the file system.
    :param device_number: ``major:minor``, the same for all mounts of one file system.
    """

    path: str
    root: str
    filesystem: str
    source: str
    options: tuple[str, ...]
    super_options: tuple[str, ...]
    device_number: str

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written through this mount."""
        return "ro" in self.options or "ro" in self.super_options

    @property
    def is_inaccessible(self) -> bool:
        """Whether systemd put an empty, forbidden file or directory here
        (``InaccessiblePaths=``).
        """
        return bool(_INACCESSIBLE.search(self.root))

    def is_same_as(self, other: Mount | None) -> bool:
        """Whether both show the same directory of the same file system."""
        mine = (self.device_number, self.root)
        return other is not None and mine == (other.device_number, other.root)


class MountTable(msgspec.Struct, frozen=True, kw_only=True):
    """All mounts of one mount namespace, in the order in which they were made."""

    mounts: tuple[Mount, ...]

    def at(self, path: str) -> Mount | None:
        """Return the topmost mount on exactly `path`."""
        return next((m for m in reversed(self.mounts) if m.path == path), None)

    def covering(self, path: str) -> Mount | None:
        """Return the mount through which `path` is seen."""
        best: Mount | None = None
        for mount in self.mounts:
            inside = path == mount.path or path.startswith(f"{mount.path.rstrip('/')}/")
            if inside and (best is None or len(mount.path) >= len(best.path)):
                best = mount
        return best

    def is_read_only(self, path: str) -> bool:
        """Whether nothing can be written at `path`; false if no mount covers it."""
        mount = self.covering(path)
        return mount is not None and mount.is_read_only

    def is_inaccessible(self, path: str) -> bool:
        """Whether systemd forbids `path`."""
        mount = self.covering(path)
        return mount is not None and mount.is_inaccessible


class FileSystemEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``/etc/fstab`` (fstab(5)).

    :param path: where it is mounted; ``none`` for swap.
    """

    source: str
    path: str
    filesystem: str
    options: tuple[str, ...]

    @property
    def is_swap(self) -> bool:
        """Whether the line declares a swap area."""
        return self.filesystem == "swap"

    @property
    def waits_for_use(self) -> bool:
        """Whether it is mounted by hand or at first use, not at boot."""
        return bool({"noauto", "x-systemd.automount"} & set(self.options))


def filesystem_table(*, name: str = "fstab") -> Probe[tuple[FileSystemEntry, ...] | None]:
    """Ask for ``/etc/fstab``; ``None`` if the machine has none."""
    return Probe(name=name, script="cat /etc/fstab", parse=_parse_fstab_output)


def _parse_fstab_output(output: ProbeOutput) -> tuple[FileSystemEntry, ...] | None:
    return parse_fstab(output.text) if output.exit_status == 0 else None


def parse_fstab(text: str) -> tuple[FileSystemEntry, ...]:
    """Read the lines of an fstab; comments and what has fewer than three fields are left out."""
    rows = (line.split() for line in text.split("\n") if not line.lstrip().startswith("#"))
    return tuple(
        FileSystemEntry(
            source=unescape_octal(row[0]),
            path=unescape_octal(row[1]),
            filesystem=row[2],
            options=tuple(row[3].split(",")) if len(row) > 3 else (),
        )
        for row in rows
        if len(row) >= 3
    )


def mounts(*, name: str = "mount") -> Probe[MountTable]:
    """Ask for the mounts of the guest's main mount namespace."""
    return Probe(
        name=name, script=_READ, parse=lambda output: parse_mountinfo(output.text.split("\n"))
    )


def parse_mountinfo(lines: Sequence[str]) -> MountTable:
    """Read lines of ``mountinfo`` (proc_pid_mountinfo(5)); odd ones are left out."""
    found = (_parse_line(line) for line in lines)
    return MountTable(mounts=tuple(mount for mount in found if mount is not None))


def _parse_line(line: str) -> Mount | None:
    # id parent major:minor root path options [tags ...] - filesystem source super-options
    left, dash, right = line.partition(" - ")
    fields, rest = left.split(" "), right.split(" ")
    if not dash or len(fields) < 6 or len(rest) < 3:
        return None
    return Mount(
        path=unescape_octal(fields[4]),
        root=unescape_octal(fields[3]),
        filesystem=rest[0],
        source=unescape_octal(rest[1]),
        options=tuple(fields[5].split(",")),
        super_options=tuple(rest[2].split(",")),
        device_number=fields[2],
    )
