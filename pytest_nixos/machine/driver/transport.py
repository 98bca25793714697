"""Commands on a machine of a NixOS test, run by the test driver's own ``Machine.execute``.

The driver answers at a Unix socket, one line of JSON for each request (``nix/judge/in_driver.py``
is the other end). It hands over text on one stream, with nothing for standard input: so a command's
text and input go there, and both its streams come back, in base64.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import secrets
import shlex
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_nixos.errors import CommandTimeout, NoAnswerError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult, short

__all__ = ["DriverTransport"]

_PATH = "/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SPOOL = "/run"
# One argument of a program may have 128 KiB, execve(2); the driver sends a command as one.
_PIECE = 60_000
# Guests are not trusted: no more than this is taken from one stream.
_MOST_OUTPUT = 64 << 20
_KILL_S = 5
# What the way there and back may take beside the command.
_WAY_S = 30.0
_CHUNK = 1 << 18

# In the guest, with the directory of the command as $1: its streams go to files, so that what it
# leaves in the background holds nobody up. Its status stands in a file when it has ended by itself.
_RUN = """\
exec <"$1/stdin" >"$1/stdout" 2>"$1/stderr"
IFS= read -r -d "" text <"$1/command"
cd /
if [ -r /etc/set-environment ]; then . /etc/set-environment; fi
export LANG="${LANG:-C.UTF-8}"
if [ "${#text}" -lt 100000 ]; then bash -c "$text"; else (set --; eval "$text"); fi
echo $? >"$1/status"
"""


class DriverTransport:
    """Root commands on one machine; several threads take turns.

    :param path: where the driver listens.
    :param spool: directory of the guest that takes commands and their output for a moment.
    """

    def __init__(self, path: Path, *, name: str, spool: str = _SPOOL) -> None:
        self._path = path
        self._name = name
        self._spool = spool
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._broken = ""

    @property
    def broken(self) -> str:
        """Why the driver answers no more, ``""`` while it does."""
        return self._broken

    def connect(self) -> None:
        """Connect to the driver.

        :raises TransportError: if nobody listens there.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError as err:
            connection.close()
            raise TransportError(
                f"{self._name}: no test driver at {self._path}: {err.strerror or err}",
                remedy="let lib.judge start the run, inside of a NixOS test's testScript",
            ) from err
        self._socket = connection

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command` with ``bash -c`` semantics as root in the guest's login environment.

        :raises CommandTimeout: if it does not end by `deadline`; its process group has been killed.
        :raises NoAnswerError: if the guest says nothing at all; the driver waits for it, so nothing
            more can be asked.
        :raises TransportError: if the machine ended, or the driver could not run it.
        """
        if "\0" in command:
            raise TransportError(
                f"{self._name}: a command holds a NUL byte", remedy="pass binary data by stdin"
            )
        with self._turn(command, deadline):
            started_s = time.monotonic()
            place = f"{self._spool}/pytest-nixos.{secrets.token_hex(16)}"
            setup = [f"umask 077; mkdir {place}"]
            texts = {"command": command.encode(errors="surrogateescape"), "stdin": stdin}
            for file, data in texts.items():
                setup += [
                    f"printf %s {piece} | base64 -d >>{place}/{file}" for piece in _pieces(data)
                ]
            for script in _together(setup):
                self._done(command, self._ask(script, deadline))
            answer = self._done(command, self._ask(self._script(place, deadline), deadline))
            return self._result(command, answer, deadline, time.monotonic() - started_s)

    def close(self) -> None:
        """Give up the channel; further calls raise :class:`TransportError`."""
        self._broken = self._broken or "it is closed"
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    @contextlib.contextmanager
    def _turn(self, command: str, deadline: Deadline) -> Iterator[None]:
        if not self._lock.acquire(timeout=deadline.remaining_s):
            raise CommandTimeout(
                f"{self._name}: the test driver was busy for {deadline.limit_s:g} s: {short(command)}",
                remedy="run fewer commands at once on one machine, or raise the timeout",
            )
        try:
            yield
        finally:
            self._lock.release()

    def _script(self, place: str, deadline: Deadline) -> str:
        limit_s = max(1, math.ceil(deadline.remaining_s))
        clean = f"env -i HOME=/root USER=root LOGNAME=root TERM=dumb PATH={_PATH}"
        # bash reads root's ~/.bashrc where its input is a socket, as it is under a driver of containers.
        run = f"bash --norc -c {shlex.quote(_RUN)} pytest-nixos {place} </dev/null"
        size = f'"$(($(stat -c %s {place}/stdout) + $(stat -c %s {place}/stderr)))"'
        return (
            f"set +eu; set +o pipefail; touch {place}/stdin {place}/stdout {place}/stderr; "
            f"timeout -k {_KILL_S} {limit_s} {clean} {run}; "
            f'echo "$(cat {place}/status 2>/dev/null)"; '
            f"echo {size}; if [ {size} -le {_MOST_OUTPUT} ]; then "
            f"base64 -w 0 {place}/stdout; echo; base64 -w 0 {place}/stderr; echo; fi; rm -rf {place}"
        )

    def _ask(self, script: str, deadline: Deadline) -> Mapping[str, Any]:
        """Have the driver execute `script`; what it answers, as it is."""
        if self._broken or self._socket is None:
            raise TransportError(
                f"{self._name}: the test driver is not reached any more: {self._broken or 'not connected'}",
                remedy="read the test's log for what became of the machine",
            )
        limit_s = max(1.0, deadline.remaining_s) + _WAY_S
        request = {"command": script, "timeout_s": math.ceil(limit_s)}
        try:
            self._socket.settimeout(limit_s + _KILL_S)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            return self._line()
        except TimeoutError as err:
            self._broken = f"it waits for an answer of the guest since {limit_s:.0f} s"
            raise NoAnswerError(
                f"{self._name}: the guest does not answer (limit {deadline.limit_s:g} s): hung?",
                remedy="read the machine's console in the test's log",
            ) from err
        except (OSError, ValueError) as err:
            self._broken = str(err)
            raise TransportError(
                f"{self._name}: the connection to the test driver broke: {err}",
                remedy="read the test's log for what became of the driver",
            ) from err

    def _line(self) -> Mapping[str, Any]:
        assert self._socket is not None
        parts: list[bytes] = []
        while not (parts and parts[-1].endswith(b"\n")):
            data = self._socket.recv(_CHUNK)
            if not data:
                raise ConnectionResetError("the driver closed the connection")
            parts.append(data)
        answer = json.loads(b"".join(parts))
        if not isinstance(answer, dict):
            raise ValueError(f"no answer of the protocol: {answer!r}"[:200])  # noqa: TRY004 - as all bad answers
        return answer

    def _done(self, command: str, answer: Mapping[str, Any]) -> str:
        """Return the output of a script that ran."""
        if "error" in answer:
            # What the driver's Machine raises where its shell is gone: the guest is.
            self._broken = str(answer["error"])
            raise TransportError(
                f"{self._name}: {short(command)}: the test driver: {answer['error']}",
                remedy="read the machine's console in the test's log",
            )
        if answer.get("status") != 0:
            raise TransportError(
                f"{self._name}: {short(command)}: could not be run: status {answer.get('status')!r}: "
                f"{str(answer.get('output'))[-200:]!r}",
                remedy=f"is there room in {self._spool} of the guest, and does it have bash and coreutils?",
            )
        return str(answer["output"])

    def _result(
        self, command: str, output: str, deadline: Deadline, duration_s: float
    ) -> CommandResult:
        status, size, *streams = output.splitlines() or ("", "")
        if not streams:
            raise TransportError(
                f"{self._name}: {short(command)}: {size} bytes of output, more than the {_MOST_OUTPUT} taken",
                remedy="redirect it to a file and read a part of that",
            )
        try:
            stdout, stderr = (base64.b64decode(text, validate=True) for text in streams)
        except ValueError as err:
            raise TransportError(
                f"{self._name}: {short(command)}: the answer is damaged: {err}",
                remedy="run it again; if that fails too, read the machine's console",
            ) from err
        if not (status.isascii() and status.isdigit()) and not deadline.expired:
            raise TransportError(
                f"{self._name}: {short(command)}: ended the shell that ran it",
                remedy="a command may not kill the process group that it runs in",
            )
        if not (status.isascii() and status.isdigit()):
            raise CommandTimeout(
                f"{short(command)}: still running after {deadline.limit_s:g} s, killed",
                remedy="look at what it waits for, or raise its timeout",
                stdout=stdout,
                stderr=stderr,
            )
        return CommandResult(
            command=command,
            exit_status=int(status),
            stdout=stdout,
            stderr=stderr,
            duration_s=duration_s,
        )


def _pieces(data: bytes) -> Iterator[str]:
    text = base64.b64encode(data).decode()
    # Each piece is whole base64 by itself: four letters are three bytes.
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _together(scripts: list[str]) -> Iterator[str]:
    """Join what fits into one trip."""
    joined = ""
    for script in scripts:
        if joined and len(joined) + len(script) > _PIECE:
            yield joined
            joined = ""
        joined = f"{joined}; {script}" if joined else script
    yield joined
