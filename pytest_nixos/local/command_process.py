"""One command of the host machine under way, for a guest: pipes on all streams, partial output,
whole-tree kill.

Unlike :mod:`pytest_nixos.local.process`, which owns what it starts to the last descendant, this
leaves processes that a guest command put into the background alone: they belong to the guest.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from pytest_nixos.errors import TransportError
from pytest_nixos.local.process import reap_orphans
from pytest_nixos.local.timing import Deadline, poll

__all__ = ["CommandProcess"]

_CHUNK = 1 << 20
# What the other end prints is not trusted: no more than this is held for one command, as on a
# machine's own channel.
_MOST_OUTPUT = 512 << 20
_PIPE_SIZE = 1 << 20
_TERM_GRACE_S = 1.0
_KILL_S = 5.0
# Output that a background process still writes after its command has ended is not waited for.
_LINGER_S = 1.0


class CommandProcess:
    """One command under way: its process and pipes.

    It is started by posix_spawn(3), which does not copy this process's memory as a fork would. It
    need not be told to die with this process: the machine does, and it with the machine.

    :param env: the whole environment.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        stdin: bytes,
    ) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self.exit_status = -1
        self._argv = argv
        self._env = env
        self._stdin = memoryview(stdin)
        self._fds: set[int] = set()
        self._pid = self._in = -1
        self._reaped = True
        self._killed = False
        self._too_much = False

    def __enter__(self) -> Self:
        try:
            with contextlib.ExitStack() as inherited:
                self._spawn(inherited)
            self._ended = os.pidfd_open(self._pid)
            self._fds.add(self._ended)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        if not self._reaped:
            self.kill()
        if self._killed and self._reaped:
            reap_orphans(self._pid)
        for descriptor in self._fds:
            os.close(descriptor)

    def _spawn(self, inherited: contextlib.ExitStack) -> None:
        self._out, out_child = self._pipe(inherited, child_end=1)
        self._err, err_child = self._pipe(inherited, child_end=1)
        if self._stdin:
            self._in, in_child = self._pipe(inherited, child_end=0)
        else:
            in_child = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            inherited.callback(os.close, in_child)
        children = [in_child, out_child, err_child]
        self._pid = os.posix_spawn(
            self._argv[0],
            list(self._argv),
            dict(self._env),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, child, number) for number, child in enumerate(children)
            ],
            setsid=True,
            # Python ignores these two, and a guest command must not.
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            setsigmask=[],
        )
        self._reaped = False

    def communicate(
        self, deadline: Deadline, *, is_complete: Callable[[], bool] | None = None
    ) -> bool:
        """Feed and read until the process has ended; return whether it did so in time.

        :param is_complete: asked after each read whether nothing more is wanted; the process counts
            as ended then.
        """
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._out, self._err, self._ended):
                selector.register(descriptor, selectors.EVENT_READ)
            if self._in >= 0:
                selector.register(self._in, selectors.EVENT_WRITE)
            while not self._reaped:
                if deadline.expired:
                    self._drain(Deadline.after(0.0))
                    return False
                self._serve(selector, selector.select(deadline.remaining_s))
                if is_complete is not None and is_complete():
                    return True
        self._drain(Deadline.after(_LINGER_S))
        return True

    def kill(self) -> None:
        """End the process and all that it started, and reap it: SIGTERM, then SIGKILL."""
        self._killed = True
        self._signal_all(signal.SIGTERM)
        if not self._poll_end(_TERM_GRACE_S):
            self._signal_all(signal.SIGKILL)
            self._poll_end(_KILL_S)
        self._drain(Deadline.after(_LINGER_S))

    def _serve(
        self,
        selector: selectors.BaseSelector,
        ready: Sequence[tuple[selectors.SelectorKey, int]],
    ) -> None:
        for key, _ in ready:
            if key.fd == self._in:
                if not self._feed():
                    selector.unregister(key.fd)
                    self._close(key.fd)
            elif key.fd == self._ended:
                self._reap()
            elif not self._read(key.fd):
                selector.unregister(key.fd)

    def _feed(self) -> bool:
        try:
            self._stdin = self._stdin[os.write(self._in, self._stdin[:_CHUNK]) :]
        except BrokenPipeError:
            return False
        return bool(self._stdin)

    def _read(self, descriptor: int) -> bool:
        """Take what a pipe holds; return whether more may come."""
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return True
        if self._too_much:
            return bool(chunk)
        (self.stdout if descriptor == self._out else self.stderr).extend(chunk)
        if len(self.stdout) + len(self.stderr) > _MOST_OUTPUT:
            # What comes while it is ended for that is thrown away.
            self._too_much = True
            raise TransportError(
                f"a command printed more than {_MOST_OUTPUT >> 20} MiB, and was ended",
                remedy="print less, or write to a file and look at a part of it",
            )
        return bool(chunk)

    def _drain(self, deadline: Deadline) -> None:
        """Take what lies in the pipes now."""
        for descriptor in (self._out, self._err):
            buffer = self.stdout if descriptor == self._out else self.stderr
            before = -1
            while len(buffer) != before and (before < 0 or not deadline.expired):
                before = len(buffer)
                self._read(descriptor)

    def _poll_end(self, limit_s: float) -> bool:
        def ended() -> bool | None:
            # A command that is blocked on a full pipe cannot end.
            self._drain(Deadline.after(0.0))
            self._reap(os.WNOHANG)
            return True if self._reaped and not self._has_members() else None

        return bool(poll(ended, deadline=Deadline.after(limit_s), interval_s=0.01))

    def _reap(self, options: int = 0) -> None:
        if self._reaped:
            return
        pid, status = os.waitpid(self._pid, options)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            self.exit_status = code if code >= 0 else 128 - code
            self._reaped = True

    def _signal_all(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._pid, number)

    def _has_members(self) -> bool:
        try:
            os.killpg(self._pid, 0)
        except OSError:
            return False
        return True

    def _pipe(self, inherited: contextlib.ExitStack, *, child_end: int) -> tuple[int, int]:
        """Make a pipe; return our end, which does not block, and the child's."""
        ends = os.pipe2(os.O_CLOEXEC)
        ours, child = ends[1 - child_end], ends[child_end]
        self._fds.add(ours)
        inherited.callback(os.close, child)
        os.set_blocking(ours, False)
        # More would need CAP_SYS_RESOURCE; less only costs time.
        with contextlib.suppress(OSError):
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        return ours, child

    def _close(self, descriptor: int) -> None:
        self._fds.discard(descriptor)
        os.close(descriptor)
