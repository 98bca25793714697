"""Monotonic deadlines and polling; every wait in this package takes a :class:`Deadline`."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = ["Deadline", "Recall", "Recalled", "poll"]

# A wait that somebody may recall looks up so often.
_LOOK_S = 0.25


class Recalled(BaseException):
    """What is waited for is not wanted any more: ends a thread's work as Ctrl-C ends the main one's."""


class Recall:
    """Takes back what other threads do; each notices it at its next look at a :class:`Deadline`."""

    def __init__(self) -> None:
        self._given = threading.Event()

    def give(self) -> None:
        """From now on every look at a deadline that knows of this raises :class:`Recalled`."""
        self._given.set()

    def check(self) -> None:
        """Raise where it was given.

        :raises Recalled: then.
        """
        if self._given.is_set():
            raise Recalled


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A point in monotonic time by which something must be done.

    :param limit_s: the whole span in seconds, kept so that messages can name it.
    :param started_s: monotonic time at which the span began.
    :param recall: ends the span early, from another thread: whoever looks at it then is raised
        :class:`Recalled`.
    """

    limit_s: float
    started_s: float = field(default_factory=time.monotonic)
    recall: Recall | None = field(default=None, compare=False, repr=False)

    @classmethod
    def after(cls, limit_s: float, *, recall: Recall | None = None) -> Deadline:
        """Make a deadline `limit_s` seconds from now."""
        return cls(limit_s=limit_s, recall=recall)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the span began."""
        return time.monotonic() - self.started_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, never below zero."""
        if self.recall is not None:
            self.recall.check()
        return max(0.0, self.limit_s - self.elapsed_s)

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining_s <= 0.0

    @property
    def patience_s(self) -> float:
        """Seconds to wait for at most before the next look at it: what is left, or less where it may
        be recalled.
        """
        return min(self.remaining_s, math.inf if self.recall is None else _LOOK_S)

    def within(self, limit_s: float) -> Deadline:
        """Make a deadline `limit_s` seconds from now that does not outlive this one."""
        return Deadline.after(min(limit_s, self.remaining_s), recall=self.recall)


T = TypeVar("T")


def poll(probe: Callable[[], T | None], *, deadline: Deadline, interval_s: float = 0.1) -> T | None:
    """Call `probe` until it returns something other than ``None`` or the deadline expires.

    The probe always runs at least once.

    :param interval_s: seconds between two calls; the last sleep is cut to what is left.
    :return: the first value, or ``None`` on expiry.
    """
    while True:
        value = probe()
        if value is not None or deadline.expired:
            return value
        time.sleep(min(interval_s, deadline.remaining_s))
