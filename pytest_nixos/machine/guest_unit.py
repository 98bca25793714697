"""A command that a transient unit of the guest runs beside the root command channel, with a directory of
its own below ``/run``.
"""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult, Transport

__all__ = ["FETCHED_S", "Fetched", "GuestUnit"]

# Seconds that one trip of the channel may take.
_TRIP_S = 60.0
#: Seconds after which whoever does not fetch has gone without a word.
FETCHED_S = 600
# Seconds between two looks whether something came.
_NAP_S = 0.02
# The exit status of what fetches where the unit's command has ended.
_OVER = 77
# Of 64 KiB, that are fetched at most of each pipe.
_BLOCKS = 16
# It only looks whether something came (`read -t 0`): a reader that is ended at the limit takes with it what it
# has read and not yet passed on. Nobody writes to `ready` any more, so to read it is to sleep. A program is
# started for what came alone: somebody who thinks before a shell costs an emulated guest little.
_FETCH = """
cd {d} && exec 3<>out 4<>err 5<>ready || exit
for ((n = 0; n < {looks}; n++)); do
  [ ! -e status ] && ! read -r -t 0 -u 3 && ! read -r -t 0 -u 4 || break
  read -r -t {nap} -u 5
done
s=; [ ! -e status ] || s=1
! read -r -t 0 -u 3 || dd bs=64K count={blocks} iflag=nonblock <&3 2>/dev/null
! read -r -t 0 -u 4 || dd bs=64K count={blocks} iflag=nonblock <&4 >&2 2>/dev/null
[ -z "$s" ] || exit {over}
exit 0
"""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came through the pipes of a unit.

    :param has_ended: whether its command had ended before.
    """

    stdout: bytes
    stderr: bytes
    has_ended: bool

    @property
    def is_all(self) -> bool:
        """Whether nothing more will come."""
        most = _BLOCKS << 16
        return self.has_ended and len(self.stdout) < most and len(self.stderr) < most


class GuestUnit:
    """A command in a unit of its own; a context manager that ends it.

    :param transport: the machine's root command channel.
    :param start: bash text that starts the unit and prints its directory.
    :param end: bash text that ends the unit, removes the directory and prints the command's exit
        status; ``{d}`` stands for the directory.
    :param what: what it is, for errors ("program").
    :param needs: programs of the guest that it takes, for the remedy.
    :raises MachineError: if the guest cannot start it.
    """

    def __init__(
        self, transport: Transport, *, start: str, end: str, what: str, needs: str
    ) -> None:
        self._transport = transport
        self._what = what
        self._end = end
        #: once it has ended
        self.exit_status: int | None = None
        started = self._run(start)
        if not started.succeeded:
            raise MachineError(
                f"a {what} cannot be started in the guest: {started.stderr_text.strip()}",
                remedy=f"the guest needs {needs}, as NixOS has them; "
                "nixos_machine.run() works without",
            )
        self._directory = shlex.quote(started.stdout_text.strip())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(MachineError):
            said = self._run(self._end.format(d=self._directory)).stdout_text.strip()
            if said.isdigit():
                self.exit_status = int(said)

    def _fetch(self, *, wait_s: float, before: str = "", stdin: bytes = b"") -> Fetched:
        """Fetch what came through the pipes `out` and `err` of its directory.

        :param wait_s: seconds at most until something comes.
        :param before: bash text that runs first.
        :param stdin: standard input of that text.
        :raises MachineError: if the guest is gone.
        """
        fetch = _FETCH.format(
            d=self._directory,
            looks=round(wait_s / _NAP_S),
            nap=_NAP_S,
            blocks=_BLOCKS,
            over=_OVER,
        )
        answer = self._run(before + fetch, stdin)
        if answer.exit_status not in (0, _OVER):
            raise self._gone(answer)
        return Fetched(answer.stdout, answer.stderr, answer.exit_status == _OVER)

    def _gone(self, answer: CommandResult) -> MachineError:
        return MachineError(
            f"the {self._what} in the guest is gone: {answer.stderr_text.strip()}",
            remedy="start it again",
        )

    def _run(self, command: str, stdin: bytes = b"") -> CommandResult:
        return self._transport.run(command, deadline=Deadline.after(_TRIP_S), stdin=stdin)
