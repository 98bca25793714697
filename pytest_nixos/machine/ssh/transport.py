"""Commands on a live host over one shared OpenSSH connection.

Each command is a session of the master connection. The remote side is one line of bash without
single quotes, backslashes or newlines, so that any login shell passes it on unchanged; the
command's text comes by standard input before its own input. The line frames both output streams
with a random mark: what login scripts print lies before it, what background processes print comes
after it, and the exit status is never mistaken for ssh's own 255.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.errors import CommandTimeout, TransportError
from pytest_nixos.local.command_process import CommandProcess
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult

__all__ = ["Framed", "SshTransport", "parse_answer", "remote_line"]

# sshd's MaxSessions is 10 per connection, sshd_config(5); one stays free for ending a command.
_SESSIONS = 8
_KILL_S = 10.0
_LONGEST_ARGUMENT = 120_000
_TAIL = 1 << 16
_PATH = "/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Framed:
    """What came between the marks.

    :param group: the remote process group, 0 while it has not told.
    :param exit_status: ``None`` while the command runs.
    """

    group: int
    exit_status: int | None
    stdout: bytes
    stderr: bytes


def remote_line(mark: str, size: int, become: Sequence[str]) -> str:
    """Build the line that the remote login shell runs.

    :param mark: letters and digits that no output contains.
    :param size: length in bytes of the command's text on standard input.
    :param become: words that make root of the login user, empty if it is root.
    """
    run = 'bash -c "$c"' if size <= _LONGEST_ARGUMENT else 'eval "$c"'
    script = (
        f"read -r s </proc/$$/stat; s=${{s##*) }}; set -- $s; echo {mark}; echo {mark} $3 >&2; "
        f"c=$(LC_ALL=C head -c {size}; echo x); c=${{c%x}}; cd /; "
        "if [ -r /etc/set-environment ]; then . /etc/set-environment >/dev/null 2>&1; fi; "
        f"export LANG=${{LANG:-C.UTF-8}}; ( unset s; {run} ); r=$?; "
        f"echo {mark}; echo {mark} $r >&2"
    )
    clean = f"env -i HOME=/root USER=root LOGNAME=root TERM=dumb PATH={_PATH}"
    return f"exec {''.join(word + ' ' for word in become)}{clean} bash -c '{script}'"


def parse_answer(mark: str, stdout: bytes, stderr: bytes) -> Framed:
    """Cut the marks off both streams, as far as they have come."""
    sign = mark.encode()
    _, began, rest = stdout.partition(sign + b"\n")
    body, closed, _ = rest.partition(sign + b"\n")
    # Before the mark, group; then errors; then status.
    errors = re.split(re.escape(sign) + rb" (\d+)\n", stderr, maxsplit=2)
    return Framed(
        group=int(errors[1]) if len(errors) >= 3 else 0,
        exit_status=int(errors[3]) if len(errors) == 5 and began and closed else None,
        stdout=body,
        stderr=errors[2] if len(errors) >= 3 else b"",
    )


@contextlib.contextmanager
def _slot(sessions: threading.BoundedSemaphore, deadline: Deadline) -> Iterator[bool]:
    got = sessions.acquire(timeout=deadline.remaining_s)
    try:
        yield got
    finally:
        if got:
            sessions.release()


class SshTransport:
    """Root commands on a live host; safe for several threads at once.

    :param client: argv of ssh up to and including the destination, using the master's socket.
    :param become: words that make root of the login user.
    :param obituary: says why the connection is gone, ``None`` while it stands.
    """

    def __init__(
        self,
        client: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str],
        become: Sequence[str],
        obituary: Callable[[], str | None],
    ) -> None:
        self._client = tuple(client)
        self._name = name
        self._env = dict(env)
        self._become = tuple(become)
        self._obituary = obituary
        self._sessions = threading.BoundedSemaphore(_SESSIONS)
        self._closed = False

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command` with ``bash -c`` semantics as root in the host's login environment.

        :raises CommandTimeout: if it does not end by `deadline`; its process group is killed on the
            host.
        :raises TransportError: if the connection broke.
        """
        if "\0" in command:
            raise TransportError(
                f"{self._name}: a command holds a NUL byte", remedy="pass binary data by stdin"
            )
        if self._closed:
            raise TransportError(
                f"{self._name}: the transport is closed", remedy="start a new machine"
            )
        with _slot(self._sessions, deadline) as got:
            if not got:
                raise CommandTimeout(
                    f"{self._name}: no free session within {deadline.limit_s:g} s: {command[:100]}",
                    remedy="run fewer commands at once on this host",
                )
            return self._run(command, deadline, stdin)

    def close(self) -> None:
        """Give up the channel; further calls raise :class:`TransportError`."""
        self._closed = True

    def _run(self, command: str, deadline: Deadline, stdin: bytes) -> CommandResult:
        started_s = time.monotonic()
        mark = secrets.token_hex(16)
        text = os.fsencode(command)
        argv = [*self._client, remote_line(mark, len(text), self._become)]
        process = CommandProcess(argv, self._env, text + stdin)

        def is_complete() -> bool:
            ends = (process.stdout[-_TAIL:], process.stderr[-_TAIL:])
            may = all(mark.encode() in end for end in ends)
            return may and framed().exit_status is not None

        def framed() -> Framed:
            return parse_answer(mark, bytes(process.stdout), bytes(process.stderr))

        with process:
            in_time = process.communicate(deadline, is_complete=is_complete)
            answer = framed()
            if not in_time:
                raise self._late(answer, command, deadline)
        if answer.exit_status is None:
            raise self._broken(process)
        return CommandResult(
            command=command,
            exit_status=answer.exit_status,
            stdout=answer.stdout,
            stderr=answer.stderr,
            duration_s=time.monotonic() - started_s,
        )

    def _late(self, answer: Framed, command: str, deadline: Deadline) -> CommandTimeout:
        killed = answer.group and self._kill(answer.group)
        first_line = command.strip().partition("\n")[0]
        shown = first_line if len(first_line) <= 100 else first_line[:97] + "..."
        how = "killed" if killed else "it may still run there"
        return CommandTimeout(
            f"{self._name}: still running after {deadline.limit_s:g} s, {how}: {shown}",
            remedy="look at what the command waits for, or allow more time",
            stdout=answer.stdout,
            stderr=answer.stderr,
        )

    def _kill(self, group: int) -> bool:
        kill = (
            f"kill -TERM -- -{group} || exit 0; for i in 1 2 3 4 5 6 7 8 9 10; do "
            f"kill -0 -- -{group} || exit 0; sleep 0.1; done; kill -KILL -- -{group}"
        )
        try:
            return self._run(kill, Deadline.after(_KILL_S), b"").succeeded
        except TransportError:
            return False

    def _broken(self, process: CommandProcess) -> TransportError:
        words = bytes(process.stderr[-2000:]).decode(errors="replace").strip().splitlines()
        why = self._obituary() or (words[-1] if words else "ssh told no reason")
        return TransportError(
            f"{self._name}: the connection broke (ssh exit status {process.exit_status}): {why}",
            remedy="check that the host is up, that bash is on its PATH, and try the same ssh command by hand",
        )
