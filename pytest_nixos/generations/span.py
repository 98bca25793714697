"""What a machine says while something happens to it: a bounded piece of console and journal."""

from __future__ import annotations

from pytest_nixos.errors import TransportError
from pytest_nixos.machine.base import Machine
from pytest_nixos.observe.systemd.journal import show_journal

__all__ = ["Span"]

_MOST_LINES = 400
_MOST_BYTES = 65536
_LIMIT_S = 60.0


class Span:
    """The console from now on, and the journal from a cursor on."""

    def __init__(self, machine: Machine, cursor: str = "") -> None:
        self._machine = machine
        self._cursor = cursor
        self._console = machine.console
        self._first = self._console.count

    def console(self) -> tuple[str, ...]:
        """Return the console's lines of this span, the last 400."""
        return tuple(line.text for line in self._console.since(self._first)[-_MOST_LINES:])

    def journal(self) -> str:
        """Return the journal after the cursor, its last 64 KiB; ``""`` if it cannot be read."""
        return self._read(f"--after-cursor={self._cursor}" if self._cursor else "--boot")

    def journal_of_boot(self) -> str:
        """Return the journal of the boot that runs, its last 64 KiB."""
        return self._read("--boot")

    def _read(self, since: str) -> str:
        show = show_journal("--output=short-monotonic", since, most_bytes=_MOST_BYTES)
        try:
            answer = self._machine.run(show, timeout_s=_LIMIT_S)
        except TransportError:
            return ""
        return answer.stdout_text
