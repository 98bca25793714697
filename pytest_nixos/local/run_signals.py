"""Signals of a process whose run of pytest goes on in another one."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any, Self

__all__ = ["RunSignals"]


class RunSignals:
    """Notes signals that end the session, in place of an exception: one that is raised while a process
    is forked gets lost (CPython only prints those of fork handlers, as logging's).

    While a run goes on they are left to it, which has its machines to end first. The keyboard's
    Ctrl-C reaches it by itself; without a terminal it is passed on.

    :ivar came: since the session's start.
    :ivar run: process of the run that goes on, 0 for none.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.came: list[int] = []
        self.run = 0
        self._on_terminal = _has_terminal()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in self._NUMBERS}
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.came.append(number)
        if self.run and not (self._on_terminal and number == signal.SIGINT):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.run, number)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
