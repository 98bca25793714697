"""Files in and out of a guest: what tests use as ``nixos_machine.files``, over any transport."""

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
from pytest_nixos.machine.command import CommandResult, Transport

__all__ = ["GuestFiles"]

_MIB = 1 << 20
# A guest of 512 MiB still has room for one piece in /run.
_PIECE = 16 * _MIB
_TIMEOUT_S = 300.0


class GuestFiles:
    """A machine's files; paths in the guest are absolute texts, those of this machine are
    :class:`~pathlib.Path`.

    All methods raise :class:`MachineError` if the guest refuses, and the errors of
    :meth:`Transport.run`.

    :param transport: the machine's root command channel.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def read(
        self, path: str, *, max_bytes: int = 16 * _MIB, timeout_s: float = _TIMEOUT_S
    ) -> bytes:
        """Return the content of a guest file.

        :param max_bytes: more than this is an error, not a part of the file.
        """
        result = self._transport.run(
            f"head -c {max_bytes + 1} -- {shlex.quote(path)}", deadline=Deadline.after(timeout_s)
        )
        _check(result, f"{path}: cannot be read in the guest")
        if len(result.stdout) > max_bytes:
            raise _too_long(path, max_bytes)
        return result.stdout

    def write(
        self, path: str, content: bytes, *, mode: int = 0o644, timeout_s: float = _TIMEOUT_S
    ) -> None:
        """Make or replace a guest file in one step: readers see the old content or all of the new.

        If it cannot be written, nothing is left behind. The file belongs to root.

        :param path: its directory must exist.
        :param mode: permission bits.
        """
        pieces = (content[start : start + _PIECE] for start in range(0, len(content), _PIECE))
        self._write(path, pieces, mode=mode, deadline=Deadline.after(timeout_s))

    def copy_in(self, local: Path, remote: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Copy a file of this machine into the guest, with its permission bits; see :meth:`write`.

        :raises OSError: if `local` cannot be read.
        """
        with local.open("rb") as source:
            mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
            pieces = iter(lambda: source.read(_PIECE), b"")
            self._write(remote, pieces, mode=mode, deadline=Deadline.after(timeout_s))

    def copy_out(
        self,
        remote: str,
        local: Path,
        *,
        max_bytes: int = 1024 * _MIB,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """Copy a guest file to this machine; `local` appears when all of it has come, readable
        by its owner.

        :param max_bytes: more than this is an error: a guest must not fill this machine's disk.
        :raises OSError: if `local` cannot be written.
        """
        deadline = Deadline.after(timeout_s)
        descriptor, name = tempfile.mkstemp(prefix=f".{local.name}.", dir=local.parent)
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                for piece in self._pieces(remote, deadline):
                    if sink.tell() + len(piece) > max_bytes:
                        raise _too_long(remote, max_bytes)  # noqa: TRY301 - the clean-up below is for it too
                    sink.write(piece)
            partial.replace(local)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _pieces(self, path: str, deadline: Deadline) -> Iterator[bytes]:
        quoted = shlex.quote(f"if={path}")
        start = 0
        while True:
            result = self._transport.run(
                f"dd {quoted} bs=128K skip={start} count={_PIECE} "
                "iflag=skip_bytes,count_bytes,fullblock status=none",
                deadline=deadline,
            )
            _check(result, f"{path}: cannot be read in the guest")
            yield result.stdout
            start += len(result.stdout)
            if len(result.stdout) < _PIECE:
                return

    def _write(self, path: str, pieces: Iterable[bytes], *, mode: int, deadline: Deadline) -> None:
        target = PurePosixPath(path)
        template = shlex.quote(str(target.parent / f".{target.name}.XXXXXXXXXX"))
        failed = f"{path}: cannot be written in the guest"
        made = self._transport.run(f"mktemp -- {template}", deadline=deadline)
        _check(made, failed)
        partial = shlex.quote(made.stdout.decode(errors="surrogateescape").rstrip("\n"))
        try:
            for piece in pieces:
                _check(
                    self._transport.run(f"cat >>{partial}", deadline=deadline, stdin=piece), failed
                )
            finish = f"chmod {mode:o} -- {partial} && mv -fT -- {partial} {shlex.quote(path)}"
            _check(self._transport.run(finish, deadline=deadline), failed)
        except BaseException:
            # The first error is the one to tell.
            with contextlib.suppress(MachineError):
                self._transport.run(f"rm -f -- {partial}", deadline=Deadline.after(5.0))
            raise


def _check(result: CommandResult, what: str) -> None:
    if not result.succeeded:
        raise MachineError(
            f"{what}: {result.stderr_text.strip()[:500] or f'exit status {result.exit_status}'}",
            remedy="look at the path, its directory and the room on its file system in the guest",
        )


def _too_long(path: str, max_bytes: int) -> MachineError:
    return MachineError(
        f"{path}: longer than {max_bytes} bytes",
        remedy="allow more by max_bytes, or copy only a part of it",
    )
