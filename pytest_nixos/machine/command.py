"""A root command in a guest, and what carries it there: one at a time, or several in one trip."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline

__all__ = [
    "DEFAULT_COMMAND_TIMEOUT_S",
    "DRAW_MARK",
    "CommandResult",
    "ExplainedTransport",
    "Transport",
    "drawn_mark",
    "run_many",
    "short",
]

DEFAULT_COMMAND_TIMEOUT_S = 120.0
_SHOWN = 80

#: Bash: draws the mark that parts the output of one trip, and keeps it in ``pn_mark``. Command
#: lines and environments can be read by every user of the guest: a mark that was sent, or that a
#: program was given, could be copied into a file's name while the trip lasts. This one stays in the
#: shell, and comes back where the output begins.
DRAW_MARK = "pn_mark=; IFS= read -r pn_mark </proc/sys/kernel/random/uuid\n"
_NUMBERS = re.compile(rb" \d{1,3} \d{1,18} \d{1,18}")
_MARK = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
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


def short(command: str) -> str:
    """Return a command as messages show it: on one line, cut at 80 characters."""
    line = " ".join(command.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."


class Transport(Protocol):
    """Carries root commands to a guest; safe for several threads at once."""

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        """Run `command` with ``bash -c`` semantics as root in the guest's own environment.

        :raises CommandTimeout: if it does not end by `deadline`; it is killed and the channel stays
            usable.
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

    Each runs in a subshell of one bash, without standard input: what it changes of its shell
    (directory, variables, ``exit``) the others do not see. A trip that ends early says how far it
    came.

    :return: one result for each command, in their order; ``duration_s`` is the time that it took in
        the guest.
    :raises CommandTimeout: if all of them do not end by `deadline`; the one that runs is killed.
    :raises TransportError: as :meth:`Transport.run`, or if one of them ended the shell of all.
    """
    if not commands:
        return ()
    token = f"--{secrets.token_hex(16)}"
    done = transport.run(batch_script(commands, token), deadline=deadline)
    results = tuple(batch_results(commands, done, token))
    if len(results) < len(commands):
        raise TransportError(
            f"{len(results)} of {len(commands)} commands came to an end in one trip: the shell of all ended with"
            f" {done.exit_status} during {commands[len(results)][:80]!r}",
            remedy="run that one by itself; a command may not kill the process group that it runs in",
        )
    return results


def drawn_mark(output: bytes, token: str) -> tuple[bytes | None, bytes]:
    """Return the mark that :data:`DRAW_MARK` drew, ``None`` without one, and the output after it.

    :param token: what the line that shows the mark begins with; what a login printed before it is
        left out.
    """
    _, _, rest = output.partition(f"\n{token} ".encode())
    mark, _, rest = rest.partition(b"\n")
    return (mark if _MARK.fullmatch(mark) else None), rest


def batch_script(commands: Sequence[str], token: str) -> str:
    """Return the bash text that runs `commands` and writes a mark on both streams after each.

    :param token: begins the line of each stream that shows the mark.
    """
    show = f"printf '\\n{token} %s\\n' \"$pn_mark\""
    return "\n".join((f"{DRAW_MARK}{show}; {show} >&2", *(_one(command) for command in commands)))


def batch_results(
    commands: Sequence[str], done: CommandResult, token: str
) -> Iterator[CommandResult]:
    """Yield the results of the commands that came to an end.

    :param done: what the text of :func:`batch_script` gave.
    """
    mark, out = drawn_mark(done.stdout, token)
    same_mark, err = drawn_mark(done.stderr, token)
    if mark is None or mark != same_mark:
        return
    separator = b"\n" + mark
    for command in commands:
        stdout, found, out = out.partition(separator)
        numbers, newline, out = out.partition(b"\n")
        stderr, found_too, err = err.partition(separator)
        if not (found and newline and found_too):
            return
        # A guest whose bash is the attacker's own knows the mark: what it writes is no result then.
        if not _NUMBERS.fullmatch(numbers):
            return
        status, started_us, ended_us = map(int, numbers.split())
        yield CommandResult(
            command=command,
            exit_status=status,
            stdout=stdout,
            stderr=stderr,
            duration_s=(ended_us - started_us) / 1e6,
        )


def _one(command: str) -> str:
    # EPOCHREALTIME has the locale's decimal point, always before six digits. The status comes
    # first: each expansion after it stands for no command.
    return (
        f"pn_started=${{EPOCHREALTIME//[!0-9]}}; (eval -- {shlex.quote(command)}) </dev/null; "
        'printf \'\\n%s %d %d %d\\n\' "$pn_mark" "$?" "$pn_started" "${EPOCHREALTIME//[!0-9]}"; '
        "printf '\\n%s' \"$pn_mark\" >&2"
    )
