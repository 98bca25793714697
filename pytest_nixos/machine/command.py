"""A root command in a guest, and what carries it there: one at a time, or several in one trip."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline

__all__ = [
    "DEFAULT_COMMAND_TIMEOUT_S",
    "CommandResult",
    "ExplainedTransport",
    "Transport",
    "run_many",
]

DEFAULT_COMMAND_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a guest command ended.

    :param exit_status: as in a shell: 128 + n for a death by signal n.
    :param stdout: bytes, unchanged.
    :param stderr: bytes, unchanged.
    :param duration_s: seconds on the host machine's clock, the way there and back included.
    """

    command: str
    exit_status: int
    stdout: bytes
    stderr: bytes
    duration_s: float

    @property
    def succeeded(self) -> bool:
        """Whether the exit status is 0."""
        return self.exit_status == 0

    @property
    def stdout_text(self) -> str:
        """Standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def stderr_text(self) -> str:
        """Standard error as UTF-8, undecodable bytes replaced."""
        return self.stderr.decode(errors="replace")


class Transport(Protocol):
    """Carries root commands to a guest; safe for several threads at once."""

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command` with ``bash -c`` semantics as root in the guest's own environment.

        :raises CommandTimeout: if it does not end by `deadline`; it is killed and the channel stays usable.
        :raises TransportError: if the guest is gone or the channel broke.
        """
        ...

    def close(self) -> None:
        """Give up the channel; further calls raise :class:`TransportError`."""
        ...


class ExplainedTransport:
    """Pass commands on; when one fails, ask whether the machine itself ended.

    :param inner: the transport that does the work.
    :param obituary: returns an error that names the machine's end, ``None`` while it lives.
    """

    def __init__(self, inner: Transport, obituary: Callable[[], TransportError | None]) -> None:
        self.inner = inner
        self._obituary = obituary

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command`; see :class:`Transport`."""
        try:
            return self.inner.run(command, deadline=deadline, stdin=stdin)
        except TransportError as err:
            end = self._obituary()
            if end is None:
                raise
            raise end from err

    def close(self) -> None:
        """Give up the channel."""
        self.inner.close()


def run_many(
    transport: Transport, commands: Sequence[str], *, deadline: Deadline
) -> tuple[CommandResult, ...]:
    """Run `commands` one after the other in one trip.

    Each runs in a subshell of one bash, without standard input: what it changes of its shell (directory,
    variables, ``exit``) the others do not see. A trip that ends early says how far it came.

    :return: one result for each command, in their order; ``duration_s`` is the time that it took in the guest.
    :raises CommandTimeout: if all of them do not end by `deadline`; the one that runs is killed.
    :raises TransportError: as :meth:`Transport.run`, or if one of them ended the shell of all.
    """
    if not commands:
        return ()
    mark = secrets.token_hex(16)
    done = transport.run(batch_script(commands, mark), deadline=deadline)
    results = tuple(batch_results(commands, done, mark))
    if len(results) < len(commands):
        raise TransportError(
            f"{len(results)} of {len(commands)} commands came to an end in one trip: the shell of all ended with"
            f" {done.exit_status} during {commands[len(results)][:80]!r}",
            remedy="run that one by itself; a command may not kill the process group that it runs in",
        )
    return results


def batch_script(commands: Sequence[str], mark: str) -> str:
    """Return the bash text that runs `commands` and writes `mark` on both streams after each.

    :param mark: text that no output holds.
    """
    return "\n".join(_one(command, mark) for command in commands)


def batch_results(
    commands: Sequence[str], done: CommandResult, mark: str
) -> Iterator[CommandResult]:
    """Yield the results of the commands that came to an end.

    :param done: what the text of :func:`batch_script` gave.
    """
    out, err = done.stdout, done.stderr
    separator = f"\n{mark}".encode()
    for command in commands:
        stdout, found, out = out.partition(separator)
        numbers, newline, out = out.partition(b"\n")
        stderr, found_too, err = err.partition(separator)
        if not (found and newline and found_too):
            return
        status, started_us, ended_us = map(int, numbers.split())
        yield CommandResult(
            command=command,
            exit_status=status,
            stdout=stdout,
            stderr=stderr,
            duration_s=(ended_us - started_us) / 1e6,
        )


def _one(command: str, mark: str) -> str:
    # EPOCHREALTIME has the locale's decimal point, always before six digits. The status comes first: each
    # expansion after it stands for no command.
    return (
        f"pn_started=${{EPOCHREALTIME//[!0-9]}}; (eval -- {shlex.quote(command)}) </dev/null; "
        f'printf \'\\n{mark} %d %d %d\\n\' "$?" "$pn_started" "${{EPOCHREALTIME//[!0-9]}}"; '
        f"printf '\\n{mark}' >&2"
    )
