"""A program in a guest with three streams that flow while it runs, over any root command channel.

Named pipes of the guest carry them; what is written is brought, and what it prints is fetched, in
short trips of the channel. A pipe that is full holds up who writes to it, so that nothing piles up
in the guest's memory however long the program runs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
import threading
import time

from pytest_nixos.errors import CommandTimeout, MachineError, NixosError
from pytest_nixos.machine.command import CommandResult, Transport
from pytest_nixos.machine.guest_job import Fetched, GuestJob

__all__ = ["GuestProgram", "run_with_streams"]

_SHORTEST_WAIT_S = 0.2
_LONGEST_WAIT_S = 1.0
# Most commands of people answer at once; what is typed comes that much later.
_FIRST_WAIT_S = 0.3
# Before a full pipe is tried again.
_FULL_S = 0.05
# What a write to a pipe moves whole or not at all: PIPE_BUF, pipe(7).
_BLOCK = 4096
#: Bytes that one trip brings at most: what a pipe holds.
MOST_WRITTEN = 1 << 16
_RECORDS = re.compile(rb"(\d+)\+(\d+) records out")

_BRING = "cd {d} && exec 3<>in && LC_ALL=C dd bs=4K iflag=fullblock oflag=nonblock >&3"
_NO_MORE = "cd {d} && exec 3<>no-more && echo >&3"
# What the program leaves behind goes on, as with sshd: below the channel, as what any of its commands leaves.
_GOES_ON = """
[ -z "$s" ] || {
  kill -KILL $j
  mapfile -t p <"$g/cgroup.procs"
  for c in "${p[@]}"; do echo $c >"${g%/*}/cgroup.procs"; done
} 2>/dev/null
"""


class GuestProgram(GuestJob):
    """A command of the guest, as root in its own environment; a context manager that ends it with all
    that it started.

    One thread may read while another one writes.

    :param transport: the machine's root command channel.
    :param command: bash text.
    :param first_wait_s: seconds that its start waits for what it prints first.
    :raises MachineError: if the guest cannot start it.
    """

    def __init__(self, transport: Transport, command: str, *, first_wait_s: float = 0.0) -> None:
        self._wait_s = _SHORTEST_WAIT_S
        self._all_read = False
        super().__init__(
            transport,
            run=f'"$BASH" -c {shlex.quote(command)}',
            what="program",
            rest=_GOES_ON,
            first_wait_s=first_wait_s,
        )

    def read(self) -> Fetched | None:
        """Wait a moment for what it prints; ``None`` where it has ended and all was read.

        :raises MachineError: if the guest is gone.
        """
        if self._all_read:
            return None
        fetched = self._take_first() or self._fetch(wait_s=self._wait_s)
        self._all_read = fetched.is_all
        if fetched.stdout or fetched.stderr:
            self._wait_s = _SHORTEST_WAIT_S
        elif fetched.has_ended:
            return None
        else:
            # Somebody who thinks costs the guest less.
            self._wait_s = min(1.5 * self._wait_s, _LONGEST_WAIT_S)
        return fetched

    def write(self, data: bytes) -> int:
        """Bring `data` to its standard input.

        :return: how many bytes of it there was room for.
        :raises MachineError: if the guest is gone.
        """
        part = data[:MOST_WRITTEN]
        answer = self._run(_BRING.format(d=self._directory), part)
        records = _RECORDS.search(answer.stderr)
        if records is None:
            raise self._gone(answer)
        whole, rest = int(records[1]), int(records[2])
        return min(len(part), whole * _BLOCK + rest * (len(part) % _BLOCK))

    def end_input(self) -> None:
        """Let its standard input end behind what was written."""
        self._run(_NO_MORE.format(d=self._directory))

    def _run(self, command: str, stdin: bytes = b"") -> CommandResult:
        try:
            return super()._run(command, stdin)
        except CommandTimeout as err:
            raise MachineError(err.message, remedy=err.remedy) from err


def run_with_streams(transport: Transport, command: str, *, stdout: int) -> int:
    """Run bash text in the guest with this process's standard input and standard error.

    A terminal's input is passed on where this process is in the foreground, as ssh(1) does.

    :param stdout: descriptor that gets its standard output.
    :return: its exit status.
    :raises MachineError: if the guest cannot start it, or is gone.
    :raises BrokenPipeError: if nobody reads what it prints any more; it is ended then.
    """
    first_wait_s = 0.0 if _is_fed() else _FIRST_WAIT_S
    with GuestProgram(transport, command, first_wait_s=first_wait_s) as program:
        threading.Thread(target=_bring_input, args=(program,), daemon=True).start()
        while (printed := program.read()) is not None:
            for descriptor, data in ((stdout, printed.stdout), (2, printed.stderr)):
                rest = data
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
    return program.exit_status or 0


def _bring_input(program: GuestProgram) -> None:
    with contextlib.suppress(NixosError):
        with contextlib.suppress(OSError):  # no standard input is an empty one
            while _may_read() and (data := os.read(0, MOST_WRITTEN)):
                while data:
                    data = data[program.write(data) :]
                    time.sleep(_FULL_S if data else 0.0)
        program.end_input()


def _is_fed() -> bool:
    """Whether standard input is a pipe or a file; a terminal and ``/dev/null`` are devices."""
    try:
        return not stat.S_ISCHR(os.fstat(0).st_mode)
    except OSError:
        return False


def _may_read() -> bool:
    return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
