"""The console: a machine's serial text, append-only and timestamped, with the boot read out of
it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from pytest_nixos.local.text import without_escapes
from pytest_nixos.machine.boot_signs import BootPhase, StartJob, Trouble, classify, start_job

__all__ = ["BootPhase", "Console", "ConsoleLine", "StartJob", "Trouble", "classify", "start_job"]

_MAX_LINE = 4096
_MAX_TROUBLES = 1000
# A boot writes some 500 lines; of the rest about 8 MiB are kept, the last ones. A line costs more
# than its text.
_FIRST_LINES = 2000
_LAST_CHARS = 8 << 20
_LINE_COST = 200


class ConsoleLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line, control sequences removed; `at_s` counts from the machine's start."""

    at_s: float
    text: str


class Console:
    """Append-only record of serial lines; safe for one writer and many readers.

    Bounded: of a guest that prints without end, lines in the middle are dropped, and a line in
    their place says so.
    """

    def __init__(self, *, listener: Callable[[ConsoleLine], None] | None = None) -> None:
        self._first: list[ConsoleLine] = []
        self._last: deque[ConsoleLine] = deque()
        self._last_chars = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._started_s = time.monotonic()
        self._listener = listener
        self.phase = BootPhase.STARTED
        self.troubles: list[Trouble] = []
        self.slow_job: StartJob | None = None
        self._step_s = time.monotonic()

    def append(self, raw: str) -> None:
        """Add one line as the serial port gave it."""
        text = clean(raw)
        line = ConsoleLine(at_s=time.monotonic() - self._started_s, text=text)
        phase, trouble = classify(text)
        job = start_job(text)
        with self._changed:
            self._keep(line)
            if phase is not None:
                self.phase = max(self.phase, phase)
            if job is None:
                self._step_s = time.monotonic()
            else:
                self.slow_job = job
            self._add_trouble(trouble)
            self._changed.notify_all()
        if self._listener is not None:
            self._listener(line)

    def begin_boot(self) -> None:
        """Forget phase and troubles of the boot before: the machine starts again. The lines
        stay.
        """
        with self._changed:
            self.phase = BootPhase.STARTED
            self.troubles = []
            self.slow_job = None
            self._step_s = time.monotonic()

    def resume(self, lines: Sequence[ConsoleLine]) -> None:
        """Begin with what an earlier machine's console showed, of which this one is a clone;
        nobody is told.
        """
        with self._changed:
            for line in lines:
                phase, trouble = classify(line.text)
                self.phase = max(self.phase, phase) if phase is not None else self.phase
                self._add_trouble(trouble)
            since = [*self._first, *self._last]
            self._first, self._last, self._last_chars, self._dropped = [], deque(), 0, 0
            for line in (*lines, *since):
                self._keep(line)
            # Time goes on from the last line.
            self._started_s = time.monotonic() - (lines[-1].at_s if lines else 0.0)

    def record(self, trouble: Trouble) -> None:
        """Add a trouble that the serial line does not tell (QEMU's monitor, the host machine)."""
        with self._changed:
            self._add_trouble(trouble)
            self._changed.notify_all()

    @property
    def lines(self) -> tuple[ConsoleLine, ...]:
        """The lines so far: the first and the last ones, with one in between that tells how many
        were left out.
        """
        with self._changed:
            return self._shown()

    @property
    def count(self) -> int:
        """How many lines came so far, those that were left out included."""
        with self._changed:
            return len(self._first) + self._dropped + len(self._last)

    def since(self, count: int) -> tuple[ConsoleLine, ...]:
        """Return the lines after the first `count` ones, as far as they were kept."""
        with self._changed:
            first = len(self._first)
            skipped = min(count, first) + max(0, count - first - self._dropped)
            return (*self._first, *self._last)[skipped:]

    def tail(self, count: int = 30) -> tuple[str, ...]:
        """The text of the last `count` lines."""
        with self._changed:
            return tuple(line.text for line in self._shown()[-count:])

    @property
    def elapsed_s(self) -> float:
        """Seconds since the machine's start."""
        return time.monotonic() - self._started_s

    @property
    def quiet_s(self) -> float:
        """Seconds since the last line, or since the start without one."""
        with self._changed:
            kept = self._last or self._first
            last_s = kept[-1].at_s if kept else 0.0
        return self.elapsed_s - last_s

    @property
    def still_s(self) -> float:
        """Seconds since the last line that is no report of a job that still runs."""
        return time.monotonic() - self._step_s

    @property
    def fatal_trouble(self) -> Trouble | None:
        """The first trouble that the boot cannot survive, if there was one."""
        with self._changed:
            return next((t for t in self.troubles if t.fatal), None)

    def _keep(self, line: ConsoleLine) -> None:
        # Bounded: a guest that writes without end must not eat this machine's memory.
        if len(self._first) < _FIRST_LINES and not self._last:
            self._first.append(line)
            return
        self._last.append(line)
        self._last_chars += len(line.text) + _LINE_COST
        while self._last_chars > _LAST_CHARS:
            self._last_chars -= len(self._last.popleft().text) + _LINE_COST
            self._dropped += 1

    def _shown(self) -> tuple[ConsoleLine, ...]:
        if not self._dropped:
            return (*self._first, *self._last)
        told = ConsoleLine(
            at_s=self._last[0].at_s, text=f"pytest-nixos: {self._dropped} lines were left out here"
        )
        return (*self._first, told, *self._last)

    def _add_trouble(self, trouble: Trouble | None) -> None:
        # Bounded: a guest that fails in ever new words must not eat the host machine's memory.
        if trouble is None or trouble in self.troubles or len(self.troubles) >= _MAX_TROUBLES:
            return
        self.troubles.append(trouble)


def clean(raw: str) -> str:
    """Remove control sequences and trailing blanks, and cut to a length that can be shown."""
    return without_escapes(raw[: 4 * _MAX_LINE])[:_MAX_LINE].rstrip()
