"""Commands in a container, by way of its namespaces: no daemon, no channel, nothing added to the guest.

Each command is ``nsenter`` (util-linux) into all namespaces of the container's process 1, started from a
cgroup of its own below the container's, so that the guest counts it as its own and it can be killed whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import selectors
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from pytest_nixos.errors import CommandTimeout, TransportError
from pytest_nixos.machine.base import CommandResult
from pytest_nixos.machine.cgroup import child_cgroup
from pytest_nixos.machine.namespace import Leader
from pytest_nixos.timing import Deadline, poll

__all__ = ["NamespaceTransport", "command_argv", "command_environment"]

_CHUNK = 1 << 20
_PIPE_SIZE = 1 << 20
_TERM_GRACE_S = 1.0
_KILL_S = 5.0
_KILLED = 128 + signal.SIGKILL
_LAST_BREATH_S = 0.3
# Output that a background process still writes after its command has ended is not waited for.
_LINGER_S = 1.0
_CURRENT = "/run/current-system/sw/bin"
# What a shell has before /etc/set-environment: a generation that is still being activated has only this.
_PATH = f"/run/wrappers/bin:{_CURRENT}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The shell of the host machine: join the cgroup ($0, may be empty), then become nsenter.
_JOIN = 'umask 022; if [ -n "$0" ]; then echo $$ 2>/dev/null >"$0/cgroup.procs"; fi; exec "$@"'
# The guest's shell: what root has after a login, then the command as `bash -c` would run it.
_LOGIN = (
    "cd /; if [ -r /etc/set-environment ]; then . /etc/set-environment >/dev/null 2>&1; fi; "
    'export LANG="${LANG:-C.UTF-8}"; '
)
# One argument of execve(2) holds 128 KiB; a longer command comes as a file.
_LONGEST_ARGUMENT = 120_000
_COMMAND_FD = 3
_FROM_FILE = f"IFS= read -r -d '' -u {_COMMAND_FD} c; exec {_COMMAND_FD}<&-; eval \"$c\""
_SHELLS = (f"{_CURRENT}/bash", "/bin/bash", "/bin/sh")


def command_argv(nsenter: str, leader_pid: int, shell: str, command: str, cgroup: str) -> list[str]:
    """Build the argv that runs one guest command.

    :param shell: path of a shell in the container.
    :param cgroup: directory of the cgroup to run in as the host machine sees it, ``""`` to stay.
    """
    enter = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
    # A second shell, so that the command's own errors, $0, $$ and positions are those of `bash -c`.
    guest = (shell, "-c", f'{_LOGIN}exec "$0" -c "$1"', shell, command)
    return ["/bin/sh", "-c", _JOIN, cgroup, nsenter, f"--target={leader_pid}", *enter, "--", *guest]


def command_environment(shell: str) -> dict[str, str]:
    """Build the environment that ``/etc/set-environment`` completes; nothing of the host machine's is in it."""
    return {
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": shell,
        "PATH": _PATH,
        "TERM": "dumb",
    }


class NamespaceTransport:
    """Root commands in a container; safe for several threads at once.

    :param leader: the container's process 1.
    :param nsenter: path of ``nsenter`` on the host machine.
    :param cgroup: the container's root cgroup as the host machine sees it, ``None`` to stay outside.
    """

    def __init__(self, leader: Leader, *, name: str, nsenter: str, cgroup: Path | None) -> None:
        self._leader = leader
        self._name = name
        self._nsenter = nsenter
        self._cgroup = cgroup
        self._serial = itertools.count(1)
        self._closed = False
        self._shell = ""
        self._choosing = threading.Lock()

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command` with ``bash -c`` semantics as root in the guest's login environment.

        Processes that it leaves in the background go on running; what they print later is lost.

        :raises CommandTimeout: if it does not end by `deadline`; all that it started is killed.
        :raises TransportError: if the container has ended or no shell can be run in it.
        """
        if "\0" in command:
            raise TransportError(
                f"{self._name}: a command holds a NUL byte", remedy="pass binary data by stdin"
            )
        return self._run_in(self._choose_shell(deadline), command, deadline, stdin)

    def close(self) -> None:
        """Give up the channel; further calls raise :class:`TransportError`."""
        self._closed = True

    def _choose_shell(self, deadline: Deadline) -> str:
        with self._choosing:
            if not self._shell:
                self._shell = next((path for path in _SHELLS if self._can_run(path, deadline)), "")
            if not self._shell:
                raise TransportError(
                    f"{self._name}: none of {', '.join(_SHELLS)} can be run in the container",
                    remedy="look at the console: its activation has probably failed",
                )
            return self._shell

    def _can_run(self, shell: str, deadline: Deadline) -> bool:
        return self._run_in(shell, "true", deadline, b"").succeeded

    def _run_in(self, shell: str, command: str, deadline: Deadline, stdin: bytes) -> CommandResult:
        self._check_alive()
        started_s = time.monotonic()
        text = os.fsencode(command)
        fits = len(text) <= _LONGEST_ARGUMENT
        given = command if fits else _FROM_FILE
        with self._own_cgroup() as cgroup:
            argv = command_argv(self._nsenter, self._leader.pid, shell, given, str(cgroup or ""))
            process = _GuestProcess(
                argv, command_environment(shell), stdin, cgroup, file=b"" if fits else text
            )
            with process:
                if not process.communicate(deadline):
                    raise self._late(process, command, deadline)
        if process.exit_status == _KILLED:
            # The container's end kills its processes first and shows a moment later.
            self._leader.wait_ended(_LAST_BREATH_S)
        self._check_alive()
        return CommandResult(
            command=command,
            exit_status=process.exit_status,
            stdout=bytes(process.stdout),
            stderr=bytes(process.stderr),
            duration_s=time.monotonic() - started_s,
        )

    @contextlib.contextmanager
    def _own_cgroup(self) -> Iterator[Path | None]:
        if self._cgroup is None:
            yield None
            return
        path = child_cgroup(self._cgroup / "pytest-nixos", str(next(self._serial)))
        try:
            yield path
        finally:
            # It stays while something in it runs in the background; it goes with the container then.
            with contextlib.suppress(OSError):
                if path is not None:
                    path.rmdir()

    def _check_alive(self) -> None:
        if self._closed:
            raise TransportError(
                f"{self._name}: the transport is closed", remedy="start a new machine"
            )
        if not self._leader.is_alive:
            raise TransportError(
                f"{self._name}: the container has ended",
                remedy="look at the console for the reason",
            )

    def _late(self, process: _GuestProcess, command: str, deadline: Deadline) -> CommandTimeout:
        process.kill()
        first_line = command.strip().partition("\n")[0]
        shown = first_line if len(first_line) <= 100 else first_line[:97] + "..."
        return CommandTimeout(
            f"{self._name}: still running after {deadline.limit_s:g} s, killed: {shown}",
            remedy="look at what the command waits for, or allow more time",
            stdout=bytes(process.stdout),
            stderr=bytes(process.stderr),
        )


class _GuestProcess:
    """One command under way: its process, pipes and cgroup.

    It is started by posix_spawn(3), which does not copy this process's memory as a fork would. It need not die
    with this process: everything in the container does.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        stdin: bytes,
        cgroup: Path | None,
        *,
        file: bytes,
    ) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self.exit_status = -1
        self._argv = argv
        self._env = env
        self._stdin = memoryview(stdin)
        self._cgroup = cgroup
        self._file = file
        self._fds: set[int] = set()
        self._pid = self._in = -1
        self._reaped = True

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
        if self._file:
            children.append(_memory_file(inherited, self._file))
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

    def communicate(self, deadline: Deadline) -> bool:
        """Feed and read until the process has ended; return whether it did so in time."""
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
        self._drain(Deadline.after(_LINGER_S))
        return True

    def kill(self) -> None:
        """End the process and all that it started, and reap it: SIGTERM, then SIGKILL."""
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
        (self.stdout if descriptor == self._out else self.stderr).extend(chunk)
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
            return True if self._reaped and not self._members() else None

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
        if self._cgroup is None and not self._reaped:
            with contextlib.suppress(OSError):
                os.killpg(self._pid, number)
        for pid in self._members():
            # nsenter ends by itself when the guest's shell does, and would take the grace away.
            if pid != self._pid or number == signal.SIGKILL:
                with contextlib.suppress(OSError):
                    os.kill(pid, number)

    def _members(self) -> list[int]:
        if self._cgroup is None:
            return []
        try:
            text = (self._cgroup / "cgroup.procs").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

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


def _memory_file(inherited: contextlib.ExitStack, data: bytes) -> int:
    descriptor = os.memfd_create("command", os.MFD_CLOEXEC)
    inherited.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
