"""A command that a transient unit of the guest runs beside the root command channel, with a directory of
its own below ``/run``.
"""

from __future__ import annotations

import contextlib
import shlex
from types import TracebackType
from typing import Self

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult, Transport

__all__ = ["BLOCKS", "FETCH", "FETCHED_S", "NAP_S", "OVER", "GuestUnit"]

# Seconds that one trip of the channel may take.
_TRIP_S = 60.0
#: Seconds between two looks of :data:`FETCH`.
NAP_S = 0.02
#: Its exit status where the unit's command has ended.
OVER = 77
#: Blocks of 64 KiB that it fetches at most of each pipe.
BLOCKS = 16
#: Seconds after which whoever does not fetch has gone without a word.
FETCHED_S = 600
#: Fetches what came through a unit's pipes `out` and `err`. It only looks whether something has (`read -t 0`):
#: a reader that is ended at the limit takes with it what it has read and not yet passed on. Nobody
#: writes to `ready` any more, so to read it is to sleep.
FETCH = """
cd {d} && exec 3<>out 4<>err 5<>ready || exit
for ((n = 0; n < {looks}; n++)); do
  [ ! -e status ] && ! read -r -t 0 -u 3 && ! read -r -t 0 -u 4 || break
  read -r -t {nap} -u 5
done
s=; [ ! -e status ] || s=1
dd bs=64K count={blocks} iflag=nonblock <&3 2>/dev/null
dd bs=64K count={blocks} iflag=nonblock <&4 >&2 2>/dev/null
[ -z "$s" ] || exit {over}
exit 0
"""


class GuestUnit:
    """A command in a unit of its own; a context manager that ends it.

    :param transport: the machine's root command channel.
    :param start: bash text that starts the unit and prints its directory.
    :param end: bash text that ends the unit, removes the directory and prints the command's exit
        status; ``{d}`` stands for the directory.
    :param refused: what cannot be done where it does not start, for the error.
    :param needs: programs of the guest that it takes, for the remedy.
    :raises MachineError: if the guest cannot start it.
    """

    def __init__(
        self, transport: Transport, *, start: str, end: str, refused: str, needs: str
    ) -> None:
        self._transport = transport
        self._end = end
        #: once it has ended
        self.exit_status: int | None = None
        started = self._run(start)
        if not started.succeeded:
            raise MachineError(
                f"{refused} in the guest: {started.stderr_text.strip()}",
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

    def _run(self, command: str, stdin: bytes = b"") -> CommandResult:
        return self._transport.run(command, deadline=Deadline.after(_TRIP_S), stdin=stdin)
