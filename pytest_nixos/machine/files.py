"""Files in and out of a guest, over any transport."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import CommandResult, Transport

__all__ = ["copy_in", "copy_out", "read_file", "write_file"]

# A guest of 512 MiB still has room for one piece in /run.
_PIECE = 16 << 20


def read_file(transport: Transport, path: str, *, max_bytes: int, deadline: Deadline) -> bytes:
    """Return the content of a guest file.

    :param path: absolute path in the guest.
    :param max_bytes: more than this is an error, not a part of the file.
    :raises MachineError: if it cannot be read or is larger.
    :raises TransportError: as :meth:`Transport.run`.
    """
    result = transport.run(f"head -c {max_bytes + 1} -- {shlex.quote(path)}", deadline=deadline)
    _check(result, f"{path}: cannot be read in the guest")
    if len(result.stdout) > max_bytes:
        raise MachineError(
            f"{path}: longer than {max_bytes} bytes", remedy="allow more bytes, or use copy_out()"
        )
    return result.stdout


def write_file(
    transport: Transport, path: str, content: bytes, *, mode: int = 0o644, deadline: Deadline
) -> None:
    """Make or replace a guest file in one step: readers see the old content or all of the new.

    :param path: absolute path in the guest; its directory must exist.
    :param mode: permission bits.
    :raises MachineError: if it cannot be written; nothing is left behind.
    :raises TransportError: as :meth:`Transport.run`.
    """
    pieces = (content[start : start + _PIECE] for start in range(0, len(content), _PIECE))
    _write(transport, path, pieces, mode=mode, deadline=deadline)


def copy_in(transport: Transport, local: Path, remote: str, *, deadline: Deadline) -> None:
    """Copy a file of this machine into the guest, with its permission bits; see :func:`write_file`.

    :raises OSError: if `local` cannot be read.
    """
    with local.open("rb") as source:
        mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
        pieces = iter(lambda: source.read(_PIECE), b"")
        _write(transport, remote, pieces, mode=mode, deadline=deadline)


def copy_out(transport: Transport, remote: str, local: Path, *, deadline: Deadline) -> None:
    """Copy a guest file to this machine; `local` appears when all of it has come, readable by its owner.

    :raises MachineError: if it cannot be read.
    :raises OSError: if `local` cannot be written.
    :raises TransportError: as :meth:`Transport.run`.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{local.name}.", dir=local.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as sink:
            sink.writelines(_pieces(transport, remote, deadline))
        partial.replace(local)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _pieces(transport: Transport, path: str, deadline: Deadline) -> Iterator[bytes]:
    quoted = shlex.quote(f"if={path}")
    start = 0
    while True:
        result = transport.run(
            f"dd {quoted} bs=128K skip={start} count={_PIECE} "
            "iflag=skip_bytes,count_bytes,fullblock status=none",
            deadline=deadline,
        )
        _check(result, f"{path}: cannot be read in the guest")
        yield result.stdout
        start += len(result.stdout)
        if len(result.stdout) < _PIECE:
            return


def _write(
    transport: Transport, path: str, pieces: Iterable[bytes], *, mode: int, deadline: Deadline
) -> None:
    target = PurePosixPath(path)
    template = shlex.quote(str(target.parent / f".{target.name}.XXXXXXXXXX"))
    failed = f"{path}: cannot be written in the guest"
    made = transport.run(f"mktemp -- {template}", deadline=deadline)
    _check(made, failed)
    partial = shlex.quote(made.stdout.decode(errors="surrogateescape").rstrip("\n"))
    try:
        for piece in pieces:
            _check(transport.run(f"cat >>{partial}", deadline=deadline, stdin=piece), failed)
        finish = f"chmod {mode:o} -- {partial} && mv -fT -- {partial} {shlex.quote(path)}"
        _check(transport.run(finish, deadline=deadline), failed)
    except BaseException:
        # The first error is the one to tell.
        with contextlib.suppress(MachineError):
            transport.run(f"rm -f -- {partial}", deadline=Deadline.after(5.0))
        raise


def _check(result: CommandResult, what: str) -> None:
    if not result.succeeded:
        raise MachineError(
            f"{what}: {result.stderr_text.strip()[:500] or f'exit status {result.exit_status}'}",
            remedy="look at the path, its directory and the room on its file system in the guest",
        )
