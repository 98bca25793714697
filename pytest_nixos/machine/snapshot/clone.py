"""A clone's QEMU: the recorded command line with a private copy of the memory and disks of its own.

Source: QEMU's documentation of ``-incoming defer``, ``memory-backend-file`` and ``-drive``,
qemu(1). A qcow2 disk gets an overlay in the machine's directory, so that the machine can be
switched off and on again; a raw one, which is the store's image, gets QEMU's own temporary overlay;
firmware variables are copied.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from pytest_nixos.machine.snapshot.record import RUN

__all__ = ["Clone", "Disk", "DiskKind", "memory_argv", "relative_argv", "saved_disks", "unsavable"]


_MEMORY_ID = "pytest-nixos-ram"
_MEMORY = "@MEMORY@"
_PLAIN_DISK = re.compile(r"^-(?:hd[a-d]|cdrom|sd|mtdblock|pflash|blockdev|fd[ab])$")
_OUTSIDE = {
    "-virtfs": "it shares a directory (-virtfs)",
    "-fsdev": "it shares a directory (-fsdev)",
    "-tpmdev": "it has a TPM, whose state lies outside of QEMU (-tpmdev)",
    "-numa": "it lays out its memory itself (-numa)",
    "-mem-path": "it lays out its memory itself (-mem-path)",
}
_QCOW2_MAGIC = b"QFI\xfb"


class DiskKind(enum.Enum):
    """How a clone gets a disk of its own."""

    OVERLAY = "overlay"
    TEMPORARY = "temporary"
    COPY = "copy"
    SHARED = "shared"


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk image that the snapshot holds.

    :param name: path below the machine's directory, and below the snapshot's.
    """

    name: str
    kind: DiskKind


class Clone(msgspec.Struct, frozen=True, kw_only=True):
    """How to start a clone.

    :param argv: QEMU's command line.
    :param cwd: its working directory.
    :param disks: images to make before it starts.
    """

    argv: tuple[str, ...]
    cwd: Path
    disks: tuple[Disk, ...]

    @classmethod
    def of(cls, argv: Sequence[str], cwd: str, *, snapshot: Path, run_dir: Path) -> Clone:
        """Turn a recorded command line into that of a clone in `run_dir`."""
        words, disks = [], []
        for before, word in zip(("", *argv), argv, strict=False):
            text = word
            if before == "-drive":
                disk = _disk(text, snapshot)
                if disk is not None:
                    disks.append(disk)
                    text = _clone_drive(text, disk, snapshot)
            elif before == "-object" and f"id={_MEMORY_ID}," in f"{text},":
                text = text.replace(_MEMORY, str(snapshot / "ram")).replace("share=on", "share=off")
            words.append(text.replace(RUN, str(run_dir)))
        return cls(
            argv=(*words, "-incoming", "defer"),
            cwd=Path(cwd.replace(RUN, str(run_dir))),
            disks=tuple(disks),
        )


def memory_argv(memory: Path, *, memory_mib: int) -> tuple[str, ...]:
    """Build the QEMU arguments that keep a guest's memory in a file, from which clones can be
    made.
    """
    backend = f"memory-backend-file,id={_MEMORY_ID},size={memory_mib}M,share=on,mem-path={memory}"
    return (
        *("-m", str(memory_mib)),
        *("-object", backend),
        *("-machine", f"memory-backend={_MEMORY_ID}"),
    )


def relative_argv(argv: Sequence[str], *, run_dir: Path, memory: Path) -> tuple[str, ...]:
    """Make a running QEMU's command line independent of its directories."""
    return tuple(
        word.replace(str(memory), _MEMORY).replace(str(run_dir), RUN) if word else word
        for word in argv
    )


def saved_disks(argv: Sequence[str]) -> tuple[str, ...]:
    """List the disk images of a relative command line, by their path below the machine's
    directory.
    """
    drives = [_options(word) for before, word in pairwise(argv) if before == "-drive"]
    files = [drive.get("file", "") for drive in drives]
    return tuple(dict.fromkeys(f.removeprefix(f"{RUN}/") for f in files if f.startswith(f"{RUN}/")))


def unsavable(argv: Sequence[str]) -> str:
    """Say why the state of a QEMU with this relative command line cannot be saved, ``""`` if it
    can.
    """
    for before, word in zip(argv, (*argv[1:], ""), strict=True):
        if before in _OUTSIDE:
            return _OUTSIDE[before]
        if _PLAIN_DISK.match(before):
            return f"it has a disk that is not a -drive ({before})"
        if before == "-object" and "memory-backend" in word and f"id={_MEMORY_ID}," not in word:
            return "it lays out its memory itself (-object memory-backend)"
        if before == "-drive":
            drive = _options(word)
            file = drive.get("file", "")
            ours = file.startswith((f"{RUN}/", "/nix/store/"))
            if file and not ours and drive.get("readonly") != "on":
                return f"it has a disk outside of its own directory ({file})"
        if "vhost-user" in word:
            return "it shares its memory with another process (vhost-user)"
    return ""


def _disk(drive: str, snapshot: Path) -> Disk | None:
    options = _options(drive)
    name = options.get("file", "")
    if not name.startswith(f"{RUN}/"):
        return None
    name = name.removeprefix(f"{RUN}/")
    if options.get("readonly") == "on":
        kind = DiskKind.SHARED
    elif options.get("if") == "pflash":
        kind = DiskKind.COPY
    elif options.get("format", "") == "qcow2" or _is_qcow2(snapshot / name):
        kind = DiskKind.OVERLAY
    else:
        kind = DiskKind.TEMPORARY
    return Disk(name=name, kind=kind)


def _clone_drive(drive: str, disk: Disk, snapshot: Path) -> str:
    if disk.kind is DiskKind.COPY:
        return drive
    if disk.kind is DiskKind.OVERLAY:
        explicit = "" if "format=" in drive else ",format=qcow2"
        return f"{drive}{explicit}"
    where = drive.replace(f"{RUN}/{disk.name}", str(snapshot / disk.name))
    return f"{where},snapshot=on" if disk.kind is DiskKind.TEMPORARY else where


def _options(text: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in text.split(","))
    return {key: value for key, _, value in pairs}


def _is_qcow2(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == _QCOW2_MAGIC
    except OSError:
        return False
