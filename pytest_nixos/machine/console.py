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


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleLine:
    """One line, control sequences removed; `at_s` counts from the machine's start."""

    at_s: float
    text: str


class Console:
    """Append-only record of serial lines; safe for one writer and many readers."""

    def __init__(self, *, listener: Callable[[ConsoleLine], None] | None = None) -> None:
        self._lines: list[ConsoleLine] = []
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
            # Time goes on from the last line.
            self._started_s = time.monotonic() - (lines[-1].at_s if lines else 0.0)

    def record(self, trouble: Trouble) -> None:
        """Add a trouble that the serial line does not tell (QEMU's monitor, the host machine)."""
        with self._changed:
            self._add_trouble(trouble)
            self._changed.notify_all()

    @property
    def lines(self) -> tuple[ConsoleLine, ...]:
        """All lines so far."""
        with self._changed:
            return tuple(self._lines)

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

    def _add_trouble(self, trouble: Trouble | None) -> None:
        # Bounded: a guest that fails in ever new words must not eat the host machine's memory.
        if trouble is None or trouble in self.troubles or len(self.troubles) >= _MAX_TROUBLES:
            return
        self.troubles.append(trouble)


def clean(raw: str) -> str:
    """Remove control sequences and trailing blanks, and cut to a length that can be shown."""
    return without_escapes(raw[: 4 * _MAX_LINE])[:_MAX_LINE].rstrip()
