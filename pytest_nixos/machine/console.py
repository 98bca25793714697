"""The console: a machine's serial text, append-only and timestamped, with the boot read out of it."""

from __future__ import annotations

import enum
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["BootPhase", "Console", "ConsoleLine", "Trouble", "classify"]

_MAX_LINE = 4096
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f]")


class BootPhase(enum.IntEnum):
    """How far a boot has come; it only grows."""

    STARTED = 0
    KERNEL = 1
    STAGE_1 = 2
    STAGE_2 = 3
    SYSTEMD = 4
    LOGIN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A boot that went wrong, or a unit that holds it up.

    :param kind: ``kernel panic``, ``stage 1 failed``, ``emergency mode``, ``stuck unit``, ...
    :param fatal: whether the boot cannot succeed any more.
    """

    kind: str
    text: str
    fatal: bool


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

    def append(self, raw: str) -> None:
        """Add one line as the serial port gave it."""
        text = _CONTROL.sub("", raw)[:_MAX_LINE].rstrip()
        line = ConsoleLine(at_s=time.monotonic() - self._started_s, text=text)
        phase, trouble = classify(text)
        with self._changed:
            self._lines.append(line)
            if phase is not None:
                self.phase = max(self.phase, phase)
            if trouble is not None and trouble not in self.troubles:
                self.troubles.append(trouble)
            self._changed.notify_all()
        if self._listener is not None:
            self._listener(line)

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
    def fatal_trouble(self) -> Trouble | None:
        """The first trouble that the boot cannot survive, if there was one."""
        with self._changed:
            return next((t for t in self.troubles if t.fatal), None)


def classify(text: str) -> tuple[BootPhase | None, Trouble | None]:
    """Read one cleaned console line: the phase that it proves and the trouble that it tells."""
    raise NotImplementedError
