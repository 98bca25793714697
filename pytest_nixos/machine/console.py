"""The console: a machine's serial text, append-only and timestamped, with the boot read out of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_nixos.local.text import without_escapes
from pytest_nixos.machine.boot_signs import BootPhase, StartJob, Trouble, classify, start_job

__all__ = ["BootPhase", "Console", "ConsoleLine", "StartJob", "Trouble", "classify", "start_job"]

_MAX_LINE = 4096
_MAX_TROUBLES = 1000
# What is kept of a console: how a boot began, and its latest lines. A guest may print megabytes a second.
_HEAD_LINES = 4000
_MOST_LINES = 40_000
_MOST_CHARACTERS = 24 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleLine:
    """One line, control sequences removed; `at_s` counts from the machine's start."""

    at_s: float
    text: str


class Console:
    """Append-only record of serial lines; safe for one writer and many readers.

    Bounded: of a guest that prints without end, lines in the middle are dropped, and a line in their place says so.
    """

    def __init__(self, *, listener: Callable[[ConsoleLine], None] | None = None) -> None:
        self._lines: list[ConsoleLine] = []
        self._characters = 0
        self._dropped = 0
        self._first_gap = _HEAD_LINES
        self._changed = threading.Condition()
        self._started_s = time.monotonic()
        self._listener = listener
        self.phase = BootPhase.STARTED
        self.troubles: list[Trouble] = []
        self.slow_job: StartJob | None = None

    def append(self, raw: str) -> None:
        """Add one line as the serial port gave it."""
        text = clean(raw)
        line = ConsoleLine(at_s=time.monotonic() - self._started_s, text=text)
        phase, trouble = classify(text)
        job = start_job(text)
        with self._changed:
            self._lines.append(line)
            self._characters += len(text)
            self._bound()
            if phase is not None:
                self.phase = max(self.phase, phase)
            if job is not None:
                self.slow_job = job
            self._add_trouble(trouble)
            self._changed.notify_all()
        if self._listener is not None:
            self._listener(line)

    def begin_boot(self) -> None:
        """Read the boot anew: the machine starts again, and what went wrong before is over. The lines stay."""
        with self._changed:
            self.phase = BootPhase.STARTED
            self.troubles = []
            self.slow_job = None

    def resume(self, lines: Sequence[ConsoleLine]) -> None:
        """Begin with what an earlier machine's console showed, of which this one is a clone; nobody is told."""
        with self._changed:
            for line in lines:
                phase, trouble = classify(line.text)
                self.phase = max(self.phase, phase) if phase is not None else self.phase
                self._add_trouble(trouble)
            self._lines = [*lines, *self._lines]
            self._characters += sum(len(line.text) for line in lines)
            # Time goes on from the last line.
            self._started_s = time.monotonic() - (lines[-1].at_s if lines else 0.0)

    def record(self, trouble: Trouble) -> None:
        """Add a trouble that the serial line does not tell (QEMU's monitor, the host machine)."""
        with self._changed:
            self._add_trouble(trouble)
            self._changed.notify_all()

    @property
    def lines(self) -> tuple[ConsoleLine, ...]:
        """All lines that are kept."""
        with self._changed:
            return tuple(self._lines)

    @property
    def count(self) -> int:
        """How many lines there have been; see :meth:`since`."""
        with self._changed:
            return len(self._lines) + self._dropped

    def since(self, count: int) -> tuple[ConsoleLine, ...]:
        """Return the lines after the first `count`, as far as they are kept."""
        with self._changed:
            gone = self._dropped if count > self._first_gap else 0
            return tuple(self._lines[max(min(count, self._first_gap), count - gone) :])

    def tail(self, count: int = 30) -> tuple[str, ...]:
        """The text of the last `count` lines."""
        with self._changed:
            return tuple(line.text for line in self._lines[-count:])

    @property
    def elapsed_s(self) -> float:
        """Seconds since the machine's start."""
        return time.monotonic() - self._started_s

    @property
    def quiet_s(self) -> float:
        """Seconds since the last line, or since the start without one."""
        with self._changed:
            last_s = self._lines[-1].at_s if self._lines else 0.0
        return self.elapsed_s - last_s

    @property
    def fatal_trouble(self) -> Trouble | None:
        """The first trouble that the boot cannot survive, if there was one."""
        with self._changed:
            return next((t for t in self.troubles if t.fatal), None)

    def _bound(self) -> None:
        """Drop the older half of what is neither the beginning nor recent, once there is too much."""
        if len(self._lines) <= _MOST_LINES and self._characters <= _MOST_CHARACTERS:
            return
        # The line that tells of earlier ones goes with them.
        first = self._first_gap = min(self._first_gap, len(self._lines) // 4)
        last = first + (len(self._lines) - first) // 2
        gone = self._lines[first:last]
        self._dropped += len(gone) - 1
        told = ConsoleLine(
            at_s=gone[-1].at_s, text=f"pytest-nixos: {self._dropped + 1} lines are not kept"
        )
        self._lines[first:last] = [told]
        self._characters += len(told.text) - sum(len(line.text) for line in gone)

    def _add_trouble(self, trouble: Trouble | None) -> None:
        # Bounded: a guest that fails in ever new words must not eat the host machine's memory.
        if trouble is None or trouble in self.troubles or len(self.troubles) >= _MAX_TROUBLES:
            return
        self.troubles.append(trouble)


def clean(raw: str) -> str:
    """Remove control sequences and trailing blanks, and cut to a length that can be shown."""
    return without_escapes(raw[: 4 * _MAX_LINE])[:_MAX_LINE].rstrip()
