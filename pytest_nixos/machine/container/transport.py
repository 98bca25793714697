"""Commands in a container, by way of its namespaces: no daemon, no channel, nothing added to the guest.

Each command is ``nsenter`` (util-linux) into all namespaces of the container's process 1, started from a
cgroup of its own below the container's, so that the guest counts it as its own and it can be killed whole.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.errors import CommandTimeout, TransportError
from pytest_nixos.local.command_process import CommandProcess
from pytest_nixos.local.namespace import Leader
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.container.cgroup import child_cgroup

__all__ = ["NamespaceTransport", "command_argv", "command_environment"]

_LAST_BREATH_S = 10.0
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
            process = CommandProcess(
                argv, command_environment(shell), stdin, cgroup, file=b"" if fits else text
            )
            with process:
                if not process.communicate(deadline):
                    raise self._late(process, command, deadline)
        if process.exit_status != 0 and self._leader.is_ending:
            # A container's end kills its other processes and takes its namespaces away first.
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

    def _late(self, process: CommandProcess, command: str, deadline: Deadline) -> CommandTimeout:
        process.kill()
        first_line = command.strip().partition("\n")[0]
        shown = first_line if len(first_line) <= 100 else first_line[:97] + "..."
        return CommandTimeout(
            f"{self._name}: still running after {deadline.limit_s:g} s, killed: {shown}",
            remedy="look at what the command waits for, or allow more time",
            stdout=bytes(process.stdout),
            stderr=bytes(process.stderr),
        )
