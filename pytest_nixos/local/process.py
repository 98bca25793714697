"""Processes of the host machine: the only importer of :mod:`subprocess`.

A process started here leads a session of its own, is reaped with its whole group when its context
manager ends, and dies with this process even if that is killed (``PR_SET_PDEATHSIG``, prctl(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import selectors
import shutil
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

import msgspec

from pytest_nixos.errors import NixosError, ToolMissingError
from pytest_nixos.local.timing import Deadline

__all__ = [
    "Completed",
    "LineSink",
    "ProcessTimeout",
    "Runner",
    "SubprocessRunner",
    "die_with_parent",
    "find_tool",
    "live_without_parent",
    "owned_process",
    "reap_orphans",
    "signals_held",
    "start_on_terminal",
    "stop_group",
]

_PR_SET_PDEATHSIG = 1
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_S = 3.0
_REAP_S = 2.0
_CHUNK = 1 << 16
_LEAST_WAIT_S = 0.1
_ROWS_AND_COLUMNS = (24, 80)

LineSink = Callable[[str], None]


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended: `exit_status` as ``subprocess`` gives it, output as bytes.

    :param peak_bytes: most memory that it had at once (``ru_maxrss``, getrusage(2)), ``None`` if
        nobody measured.
    """

    argv: tuple[str, ...]
    exit_status: int
    stdout: bytes
    stderr: bytes
    peak_bytes: int | None = None

    @property
    def stdout_text(self) -> str:
        """Standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def stderr_text(self) -> str:
        """Standard error as UTF-8, undecodable bytes replaced."""
        return self.stderr.decode(errors="replace")


class ProcessTimeout(NixosError):
    """A process of the host machine did not end in time and was killed with its group."""


class Runner(Protocol):
    """Runs a command of the host machine to its end; tests give a fake one."""

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_stderr_line: LineSink | None = None,
    ) -> Completed:
        """Run `argv` and wait.

        :param env: variables added to this process's environment.
        :param on_stderr_line: called with each line of standard error as it comes, without its
            newline.
        :raises ToolMissingError: if the program is not on PATH.
        :raises ProcessTimeout: if it does not end by `deadline`.
        """
        ...


class SubprocessRunner:
    """The real :class:`Runner`."""

    def run(
        self,
        argv: Sequence[str],
        *,
        deadline: Deadline,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        on_stderr_line: LineSink | None = None,
    ) -> Completed:
        with owned_process(argv, env=env, cwd=cwd) as process:
            stdout, stderr = _communicate(process, argv, deadline, stdin, on_stderr_line)
            exit_status, peak_bytes = _reap(process, argv, deadline)
        return Completed(
            argv=tuple(argv),
            exit_status=exit_status,
            stdout=stdout,
            stderr=stderr,
            peak_bytes=peak_bytes,
        )


def find_tool(name: str, *, remedy: str) -> str:
    """Return the absolute path of a program on PATH.

    :raises ToolMissingError: naming the program, with `remedy`.
    """
    path = shutil.which(name)
    if path is None:
        raise ToolMissingError(
            f"{name}: no such program on PATH ({os.environ.get('PATH', '')})", remedy=remedy
        )
    return path


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Hold back what Python does on Ctrl-C and the like until the block is over.

    An exception that is raised in a fork handler of Python's own modules (logging's,
    concurrent.futures') gets lost, and the lock that the handler should have released stays taken:
    every other thread that forks then waits for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in _ENDING}
    held = {number: handler for number, handler in before.items() if callable(handler)}
    for number in held:
        signal.signal(number, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
    for which, frame in came:
        held[signal.Signals(which)](which, frame)


@contextlib.contextmanager
def owned_process(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `argv` with pipes on all three streams; end its whole process group on leaving.

    :raises ToolMissingError: if the program cannot be started because it is not there.
    """
    with contextlib.ExitStack() as stack:
        try:
            with signals_held():
                process = subprocess.Popen(  # noqa: S603 - argv lists from pure functions, run as the user who called
                    list(argv),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - prctl is async-signal-safe; nothing else can set it
                )
                stack.callback(_end, process)
        except FileNotFoundError as err:
            raise ToolMissingError(
                f"{argv[0]}: no such program", remedy=f"install {argv[0]} or put it on PATH"
            ) from err
        yield process


def _end(process: subprocess.Popen[bytes]) -> None:
    stop_group(process.pid, is_gone=lambda: process.poll() is not None)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()


def start_on_terminal(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path
) -> tuple[subprocess.Popen[bytes], int]:
    """Start `argv` with a terminal of its own, which does not echo, as its three streams.

    Unlike ``pty.fork()`` this is safe beside other threads: the child runs no Python but
    :func:`_own_terminal`.

    :param env: the whole environment.
    :return: the process, which is the caller's to end and to wait for, and the descriptor of the
        terminal's other end, which is the caller's to close.
    :raises OSError: if the program cannot be run.
    """
    ours, its = os.openpty()
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, ours)
        try:
            mode = termios.tcgetattr(its)
            mode[3] &= ~termios.ECHO
            termios.tcsetattr(its, termios.TCSANOW, mode)
            termios.tcsetwinsize(its, _ROWS_AND_COLUMNS)
            with signals_held():
                process = subprocess.Popen(  # noqa: S603 - argv lists from pure functions, run as the user who called
                    list(argv),
                    stdin=its,
                    stdout=its,
                    stderr=its,
                    env=env,
                    cwd=cwd,
                    start_new_session=True,
                    preexec_fn=functools.partial(_own_terminal, os.getpid()),  # noqa: PLW1509 - system calls alone; nothing else can do them
                )
                undo.callback(_end, process)
        finally:
            os.close(its)
        undo.pop_all()
    return process, ours


def _own_terminal(parent_pid: int) -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    die_with_parent(parent_pid)


def stop_group(pgid: int, *, is_gone: Callable[[], bool], grace_s: float = _GRACE_S) -> None:
    """End a process group: SIGTERM, then SIGKILL after `grace_s` seconds.

    :param pgid: process group, equal to the pid of its leader.
    :param is_gone: tells (and reaps) whether the leader has ended.
    """
    if not _signal_group(pgid, signal.SIGTERM):
        return
    deadline = Deadline.after(grace_s)
    while not deadline.expired and not (is_gone() and not _signal_group(pgid, 0)):
        time.sleep(min(0.02, deadline.remaining_s))
    _signal_group(pgid, signal.SIGKILL)
    if is_gone():
        reap_orphans(pgid)


def die_with_parent(parent_pid: int) -> None:
    """In a child before exec: ask the kernel for SIGKILL when the parent ends.

    :param parent_pid: of the parent. One that was killed before the kernel was asked has a child
        that nobody ends: it would go on in a directory that the next session removes.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def live_without_parent() -> None:
    """Take back what :func:`die_with_parent` asked of the kernel."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, 0)


def reap_orphans(pgid: int) -> None:
    """Reap what the group's leader left behind, where this process inherits it: as process 1 of
    a container.
    """
    deadline = Deadline.after(_REAP_S)
    while not deadline.expired:
        try:
            pid, _ = os.waitpid(-pgid, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.005)


def _signal_group(pgid: int, number: int) -> bool:
    try:
        os.killpg(pgid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _communicate(
    process: subprocess.Popen[bytes],
    argv: Sequence[str],
    deadline: Deadline,
    stdin: bytes,
    on_stderr_line: LineSink | None,
) -> tuple[bytes, bytes]:
    assert process.stdin and process.stdout and process.stderr
    stdout, stderr = bytearray(), bytearray()
    lines = _LineSplitter(on_stderr_line)
    to_write = memoryview(stdin)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ, stdout)
        selector.register(process.stderr, selectors.EVENT_READ, stderr)
        if to_write:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE)
        else:
            process.stdin.close()
        while selector.get_map():
            if deadline.expired:
                raise _timeout(argv, deadline)
            for key, _ in selector.select(deadline.patience_s):
                if key.fileobj is process.stdin:
                    to_write = _feed(process, to_write, selector)
                    continue
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                key.data.extend(chunk)
                if key.fileobj is process.stderr:
                    lines.feed(chunk)
    lines.end()
    return bytes(stdout), bytes(stderr)


def _reap(
    process: subprocess.Popen[bytes], argv: Sequence[str], deadline: Deadline
) -> tuple[int, int]:
    """Wait for a process whose streams have ended; return its exit status and the most memory
    that it had, in bytes.

    :raises ProcessTimeout: if it does not end by `deadline`.
    """
    end = Deadline.after(max(deadline.remaining_s, _LEAST_WAIT_S))
    pause_s = 0.0005
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_maxrss * 1024
        if end.expired:
            raise _timeout(argv, deadline)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)


def _feed(
    process: subprocess.Popen[bytes], pending: memoryview, selector: selectors.BaseSelector
) -> memoryview:
    assert process.stdin
    try:
        pending = pending[os.write(process.stdin.fileno(), pending[:_CHUNK]) :]
    except BrokenPipeError:
        pending = pending[:0]
    if not pending:
        selector.unregister(process.stdin)
        process.stdin.close()
    return pending


def _timeout(argv: Sequence[str], deadline: Deadline) -> ProcessTimeout:
    return ProcessTimeout(
        f"{' '.join(argv[:3])}{' ...' if len(argv) > 3 else ''}: still running after {deadline.limit_s:g} s",
        remedy="look at what it waits for, or raise the limit",
    )


class _LineSplitter:
    def __init__(self, sink: LineSink | None) -> None:
        self._sink = sink
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        if self._sink is None:
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._sink(line.decode(errors="replace"))

    def end(self) -> None:
        if self._sink is not None and self._rest:
            self._sink(self._rest.decode(errors="replace"))
