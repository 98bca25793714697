"""A root shell in a guest, on the terminal of whoever runs pytest, over any root command channel.

In the guest util-linux's ``script`` gives the shell a terminal; what it prints is fetched, and what is
typed is brought, in short trips of the channel. That is the same for a VM, a clone, a container and
a live host, and needs no login and no network.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import termios
import tty
from collections.abc import Iterator
from types import FrameType

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.guest_job import GuestJob

__all__ = ["GuestTerminal", "attach"]

#: typed, it leaves the shell behind: Ctrl-], as for telnet and machinectl
LEAVE = b"\x1d"

_IDLE_WAIT_S = 0.05
_MOST_TYPED = 1 << 12
_ECHO_S = 0.06
# A shell says something first: its prompt.
_PROMPT_S = 0.5

# `script` makes a terminal without echo where it has none itself. `-ef` tells its name without a program.
_ON_TERMINAL = """
for tty in /dev/pts/*; do [ $tty -ef /proc/thread-self/fd/0 ] && echo $tty >$d/tty; done
unset d tty
stty sane rows {rows} cols {columns}
{command}"""
_TYPE = "cat >{d}/in\n"


class GuestTerminal(GuestJob):
    """A command with a terminal of its own in the guest; a context manager that ends it.

    :param transport: the machine's root command channel.
    :param command: bash text; by default root's login shell.
    :param rows: of the terminal.
    :param columns: of the terminal.
    :raises MachineError: if the guest cannot start it.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        command: str = "exec bash -l",
        rows: int = 24,
        columns: int = 80,
        term: str = "dumb",
    ) -> None:
        text = _ON_TERMINAL.format(rows=rows, columns=columns, command=command)
        super().__init__(
            transport,
            run=f'TERM={shlex.quote(term)} script -qefc "d=$d"{shlex.quote(text)} /dev/null',
            what="terminal",
            needs=("script",),
            errors=4,
            first_wait_s=_PROMPT_S,
        )

    def exchange(self, typed: bytes = b"") -> bytes | None:
        """Bring what was typed, and return what was printed since the last call; ``None`` where
        the command has ended and all was read.

        :raises MachineError: if the guest is gone.
        """
        if typed:
            # It has an echo, which this trip then brings.
            bring = _TYPE.format(d=self._directory)
            fetched = self._fetch(wait_s=_ECHO_S, before=bring, stdin=typed)
        else:
            fetched = self._take_first() or self._fetch(wait_s=0)
        return None if fetched.has_ended and not fetched.stdout else fetched.stdout

    @property
    def tty(self) -> str:
        """Name of the terminal in the guest (``/dev/pts/3``)."""
        return self._run(f"cat {self._directory}/tty").stdout_text.strip()

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell the guest the size of the terminal."""
        self._run(f'stty -F "$(<{self._directory}/tty)" rows {rows} cols {columns}')


def attach(transport: Transport, *, command: str = "exec bash -l") -> int:
    """Connect the terminal of this process to a command in the guest until that ends, or until
    Ctrl-] is typed.

    pytest's capture does not matter: the terminal is opened anew.

    :param command: bash text; by default root's login shell.
    :return: the command's exit status; 0 where it was left behind.
    :raises MachineError: if this process has no terminal, or the guest cannot start it.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError as err:
        raise MachineError(
            f"no terminal to open a shell on: {err.strerror}",
            remedy="run it where somebody sits before it; in CI use nixos_machine.run()",
        ) from err
    try:
        size = os.get_terminal_size(terminal)
        with (
            GuestTerminal(
                transport,
                command=command,
                rows=size.lines,
                columns=size.columns,
                term=os.environ.get("TERM", "dumb"),
            ) as guest,
            _raw(terminal),
            _noticing_size() as changed,
        ):
            _converse(guest, terminal, changed)
    finally:
        os.close(terminal)
    return guest.exit_status or 0


def _converse(guest: GuestTerminal, terminal: int, changed: list[int]) -> None:
    typed = b""
    with contextlib.suppress(OSError):  # the window was closed
        while (printed := guest.exchange(typed)) is not None:
            flows = bool(printed)
            while printed:
                printed = printed[os.write(terminal, printed) :]
            if changed:
                changed.clear()
                size = os.get_terminal_size(terminal)
                guest.resize(rows=size.lines, columns=size.columns)
            typed = b""
            if select.select([terminal], [], [], 0.0 if flows else _IDLE_WAIT_S)[0]:
                typed = os.read(terminal, _MOST_TYPED)
                if not typed or LEAVE in typed:
                    return


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Let each key through as it is typed."""
    before = termios.tcgetattr(terminal)
    try:
        # What was typed before is for the shell.
        tty.setraw(terminal, termios.TCSADRAIN)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the window was closed
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _noticing_size() -> Iterator[list[int]]:
    """Yield a list that grows when the size of the terminal changes."""
    changed: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        changed.append(number)

    before = signal.signal(signal.SIGWINCH, note)
    try:
        yield changed
    finally:
        signal.signal(signal.SIGWINCH, before)
