"""The files of a recording: written whole, held against their digests when they are read."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec

from pytest_nixos.errors import SettingsError
from pytest_nixos.recording.model import FORMAT, VERSION, HostFiles, Manifest

__all__ = [
    "MANIFEST",
    "REMEDY",
    "digest",
    "folder_of",
    "read_file",
    "read_manifest",
    "try_new",
    "write_file",
]

MANIFEST = "recording.json"
_MOST_BYTES = 256 << 20
_LONGEST_NAME = 100
REMEDY = "record it again: --nixos-record DIR"
T = TypeVar("T")


def folder_of(key: str) -> str:
    """Return the folder of a host below the recording: its key, where that can be a file's name."""
    name = quote(key, safe="").replace(".", "%2E") if key.startswith(".") else quote(key, safe="")
    if len(name) <= _LONGEST_NAME:
        return f"hosts/{name}"
    return f"hosts/{name[:_LONGEST_NAME]}-{digest(key.encode())[:16]}"


def digest(data: bytes) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def try_new(directory: Path) -> None:
    """Find out, before anything is built, whether a recording can be made there.

    :raises SettingsError: if something else lies there, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(directory.iterdir()):
            raise SettingsError(
                f"--nixos-record {directory}: is not empty",
                remedy="name a new directory for each recording; none is written over",
            )
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as err:
        raise SettingsError(
            f"--nixos-record {directory}: cannot be written: {err.strerror or err}",
            remedy="name a directory that you can write to",
        ) from err


def write_file(path: Path, document: msgspec.Struct) -> str:
    """Write one file for its owner alone, and return its digest.

    :raises OSError: if it cannot be written.
    """
    for folder in reversed(path.parents[:2]):  # parents=True would let others into those between
        folder.mkdir(exist_ok=True, mode=0o700)
    data = msgspec.json.encode(document) + b"\n"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor
        stream.write(data)
    draft.replace(path)
    return digest(data)


def read_manifest(directory: Path) -> Manifest:
    """Read what a recording holds.

    :raises SettingsError: if it is none, damaged or of another version.
    """
    file = directory / MANIFEST
    if not file.is_file() and not file.is_symlink():
        raise SettingsError(
            f"--nixos-replay {directory}: {_why_none(directory, file)}",
            remedy="name a directory that --nixos-record made, whole",
        )
    data = _bytes(file)
    try:
        head = msgspec.json.decode(data, type=dict)
        if head.get("format") != FORMAT:
            raise SettingsError(
                f"--nixos-replay: {file}: is no recording",
                remedy="name one that --nixos-record made",
            )
        if head.get("version") != VERSION:
            raise SettingsError(
                f"--nixos-replay: {file}: version {head.get('version')!r}, this release reads {VERSION}",
                remedy="replay it with the release that recorded it: "
                f"pytest-nixos {head.get('plugin_version', '')}".rstrip(),
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, RecursionError) as err:
        raise SettingsError(f"--nixos-replay: {file}: is damaged: {err}", remedy=REMEDY) from err


def _why_none(directory: Path, file: Path) -> str:
    if file.exists():
        return f"its {MANIFEST} is no plain file"
    if directory.is_dir():
        return f"is no recording: it has no {MANIFEST}"
    if directory.exists():
        return "is a file, and not the directory of a recording"
    return "no such directory"


def read_file(directory: Path, files: HostFiles, name: str, kind: type[T]) -> T | None:
    """Read one file of a host, ``None`` where the recording has none of that name.

    :raises SettingsError: if it is damaged, or not the one that was recorded.
    """
    if name not in files.sha256:
        return None
    path = directory / files.folder / name
    if not path.resolve().is_relative_to(directory.resolve()):
        raise SettingsError(f"--nixos-replay: {path}: lies elsewhere", remedy=REMEDY)
    data = _bytes(path)
    if digest(data) != files.sha256[name]:
        raise SettingsError(
            f"--nixos-replay: {path}: is not what was recorded: its SHA-256 differs from {MANIFEST}",
            remedy=REMEDY,
        )
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError) as err:
        raise SettingsError(f"--nixos-replay: {path}: is damaged: {err}", remedy=REMEDY) from err


def _bytes(path: Path) -> bytes:
    """Read one plain file: neither a pipe that never ends nor a link to elsewhere.

    :raises SettingsError: if it is none, too large, or cannot be read.
    """
    why = ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                why = "is no plain file"
            elif len(data := stream.read(_MOST_BYTES + 1)) > _MOST_BYTES:
                why = f"is larger than {_MOST_BYTES >> 20} MiB"
            else:
                return data
    except OSError as err:
        link = err.errno == errno.ELOOP
        why = f"is damaged: {'it is a link' if link else err.strerror}"
    raise SettingsError(f"--nixos-replay: {path}: {why}", remedy=REMEDY)
