"""A snapshot: the saved state of a booted VM, from which clones start.

It holds the guest's memory as a file that clones map privately, QEMU's device state, the disks as
they were at that moment, and the command line with which QEMU had been started, with ``@RUN@`` for
the machine's directory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.console import ConsoleLine
from pytest_nixos.machine.snapshot.sealed_file import SealedFile

__all__ = [
    "FORMAT",
    "RUN",
    "GuestAtRest",
    "Snapshot",
    "SnapshotDamaged",
    "SnapshotRecord",
    "snapshot_key",
]

# What a snapshot is made of, and how a guest is woken: a change here makes all older ones useless.
FORMAT = 2
RUN = "@RUN@"
RECORD = "snapshot.json"
MEMORY = "ram"
STATE = "state"
_LONGEST_RECORD = 64 << 20


class SnapshotDamaged(MachineError):
    """A snapshot cannot be used: it is not whole, not ours, or QEMU does not load it."""


class GuestAtRest(msgspec.Struct, frozen=True, kw_only=True):
    """What the guest said just before it was saved.

    :param failed_units: names of the units that had failed.
    :param timers: active calendar timers, each with the time (seconds since 1970) at which it would
        run next.
    """

    failed_units: tuple[str, ...] = ()
    timers: Mapping[str, float] = msgspec.field(default_factory=dict)


class SnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a snapshot beside the files that QEMU reads.

    :param parts: what the key was made of.
    :param argv: QEMU's command line as it ran, :data:`RUN` standing for the machine's directory.
    :param cwd: its working directory, likewise.
    :param memory_mib: memory of the guest.
    :param saved_at_s: seconds since 1970.
    :param boot_s: seconds that the boot took.
    """

    key: str
    host: str
    parts: Mapping[str, str]
    argv: tuple[str, ...]
    cwd: str
    memory_mib: int
    saved_at_s: float
    boot_s: float
    guest: GuestAtRest
    console: tuple[ConsoleLine, ...]
    files: tuple[SealedFile, ...]

    def to_bytes(self) -> bytes:
        """Return the record's text, its own checksum in front."""
        content = {
            "format": FORMAT,
            "key": self.key,
            "host": self.host,
            "parts": dict(self.parts),
            "argv": self.argv,
            "cwd": self.cwd,
            "memoryMib": self.memory_mib,
            "savedAt": self.saved_at_s,
            "bootSeconds": self.boot_s,
            "failedUnits": self.guest.failed_units,
            "timers": dict(self.guest.timers),
            "console": [[line.at_s, line.text] for line in self.console],
            "files": [file.as_json() for file in self.files],
        }
        text = json.dumps(content).encode()
        return hashlib.sha256(text).hexdigest().encode() + b"\n" + text

    @classmethod
    def from_bytes(cls, text: bytes) -> Self:
        """Read what :meth:`to_bytes` gave.

        :raises SnapshotDamaged: if it is not whole, or of another format.
        """
        digest, _, content = text.partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise damaged("its record was cut off or changed")
        data: dict[str, Any] = json.loads(content)
        if data.get("format") != FORMAT:
            raise damaged(f"its format is {data.get('format')}, not {FORMAT}")
        return cls(
            key=data["key"],
            host=data["host"],
            parts=data["parts"],
            argv=tuple(data["argv"]),
            cwd=data["cwd"],
            memory_mib=data["memoryMib"],
            saved_at_s=data["savedAt"],
            boot_s=data["bootSeconds"],
            guest=GuestAtRest(failed_units=tuple(data["failedUnits"]), timers=data["timers"]),
            console=tuple(ConsoleLine(at_s=at_s, text=text) for at_s, text in data["console"]),
            files=tuple(SealedFile.parse(entry) for entry in data["files"]),
        )


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot on disk; none of its files is ever written to."""

    directory: Path
    record: SnapshotRecord

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read a snapshot's record; its files are looked at by :meth:`check`.

        :raises SnapshotDamaged: if there is a directory that is no whole snapshot of this user's.
        """
        _refuse_foreign(directory)
        try:
            with (directory / RECORD).open("rb") as file:
                text = file.read(_LONGEST_RECORD)
        except OSError as err:
            raise damaged(f"its record cannot be read: {err.strerror}") from err
        return cls(directory=directory, record=SnapshotRecord.from_bytes(text))

    def check(self) -> None:
        """Look whether all files are as they were saved; those that were touched since are read.

        :raises SnapshotDamaged: naming the first that is not.
        """
        for file in self.record.files:
            refusal = file.check(self.directory)
            if refusal:
                raise damaged(refusal)

    def verify(self) -> None:
        """Read all files and compare.

        :raises SnapshotDamaged: naming the first that is not as it was saved.
        """
        for file in self.record.files:
            refusal = file.read_check(self.directory)
            if refusal:
                raise damaged(refusal)

    @property
    def memory(self) -> Path:
        """The guest's memory."""
        return self.directory / MEMORY

    @property
    def state(self) -> Path:
        """State of QEMU's devices."""
        return self.directory / STATE

    @property
    def memory_bytes(self) -> int:
        """What the guest had in use."""
        return _room(self.memory)

    @property
    def disk_bytes(self) -> int:
        """Room that its files take on disk."""
        return sum(_room(path) for path in self.directory.rglob("*") if path.is_file())


def damaged(why: str) -> SnapshotDamaged:
    """Make the error of a snapshot that cannot be used."""
    return SnapshotDamaged(why, remedy="nothing: the next cold boot makes a new one")


def snapshot_key(parts: Mapping[str, str]) -> str:
    """Return the name of the snapshot of a machine that is shaped by `parts`."""
    text = json.dumps({"format": str(FORMAT), **parts}, sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:40]


def _refuse_foreign(directory: Path) -> None:
    state = directory.lstat()
    if state.st_uid != os.geteuid():
        raise damaged(f"it belongs to user {state.st_uid}")
    if state.st_mode & 0o077:
        raise damaged(f"it is open to other users (mode {state.st_mode & 0o777:o})")


def _room(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0
