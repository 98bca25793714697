"""Monotonic deadlines and polling; every wait in this package takes a :class:`Deadline`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = ["Deadline", "poll"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A point in monotonic time by which something must be done.

    :param limit_s: the whole span in seconds, kept so that messages can name it.
    :param started_s: monotonic time at which the span began.
    :param recalled: once it is set, no time is left.
    """

    limit_s: float
    started_s: float = field(default_factory=time.monotonic)
    recalled: threading.Event | None = None

    @classmethod
    def after(cls, limit_s: float, *, recalled: threading.Event | None = None) -> Deadline:
        """Make a deadline `limit_s` seconds from now.

        :param recalled: once it is set, no time is left: nobody wants any more what is waited for.
        """
        return cls(limit_s=limit_s, recalled=recalled)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the span began."""
        return time.monotonic() - self.started_s

    @property
    def remaining_s(self) -> float:
        """Seconds left, never below zero."""
        if self.recalled is not None and self.recalled.is_set():
            return 0.0
        return max(0.0, self.limit_s - self.elapsed_s)

    @property
    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining_s <= 0.0

    def within(self, limit_s: float) -> Deadline:
        """Make a deadline `limit_s` seconds from now that does not outlive this one."""
        return Deadline(limit_s=min(limit_s, self.remaining_s), recalled=self.recalled)


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
