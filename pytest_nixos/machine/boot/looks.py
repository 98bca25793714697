"""When a boot under way is looked at next.

A look starts programs in the guest, and takes their time from its boot, most where the guest is
emulated. So it is looked at seldom, until there is a sign that the boot has ended. Of a VM that is a
login prompt on its console: gettys are ``Type=idle`` (systemd.service(5)), which start when no job is
left, or five seconds later. Of a container it is its systemd's own word (sd_notify(3)). A sign is no
proof, and not every host gives one. A console that tells of one unit after the other tells as well that
the boot has not ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import msgspec

from pytest_nixos.local.timing import Deadline

__all__ = ["Looks", "Signs"]

# So many times as long as an answer took, within these.
_REST = 30
_LEAST_S = 0.02
_MOST_S = 5.0
# Before the first one: a channel answers long before the boot has ended.
_FIRST_S = 1.0
# Where the console never falls silent for as long as the pause, the pause is so many times as long.
_MOST_PAUSES = 4
# Behind a sign: as long as an answer takes, or a tenth of the time that was waited, but no longer than this.
_INTERVAL_S = 0.4
_SHARE = 0.1
_STALLED_INTERVAL_S = 2.0
_SIGN_LOOK_S = 0.02


class Signs(msgspec.Struct, frozen=True, kw_only=True):
    """What tells of a boot without a question to its guest.

    :param has_ended: whether there is a sign that the boot has ended, and no proof.
    :param still_s: for how many seconds the console has told of no step of the boot.
    """

    has_ended: Callable[[], bool] = lambda: False
    still_s: Callable[[], float] = lambda: math.inf


class Looks:
    """Waits between two looks.

    :param check: called while it waits; raises if the machine ended or its boot failed.
    """

    def __init__(self, signs: Signs, check: Callable[[], None]) -> None:
        self._signs = signs
        self._check = check
        self._began_s = time.monotonic()

    def wait_first(self, deadline: Deadline) -> None:
        """Wait until a first look may tell of more than a boot under way."""
        self._rest(_FIRST_S, deadline)

    def wait(self, answered_s: float, *, stalled: bool, finished: bool, deadline: Deadline) -> None:
        """Wait until the next look, or until a sign comes; longer while the console tells of steps.

        :param answered_s: what the last look took.
        :param stalled: whether the boot stands.
        :param finished: whether it was over at the last look, with jobs that came later.
        """
        near = finished or self._signs.has_ended()
        pause_s = self._pause_s(answered_s, stalled=stalled, near=near)
        if near:
            time.sleep(min(pause_s, deadline.remaining_s))
        else:
            self._rest(pause_s, deadline)

    def _rest(self, seconds: float, deadline: Deadline) -> None:
        pause, end = deadline.within(seconds), deadline.within(_MOST_PAUSES * seconds)
        while not self._signs.has_ended() and not end.expired:
            if pause.expired and self._signs.still_s() >= seconds:
                return
            self._check()
            time.sleep(min(_SIGN_LOOK_S, end.remaining_s))

    def _pause_s(self, answered_s: float, *, stalled: bool, near: bool) -> float:
        if stalled:
            return _STALLED_INTERVAL_S
        if near:
            waited_s = time.monotonic() - self._began_s
            return min(_INTERVAL_S, max(answered_s, _SHARE * waited_s))
        return min(_MOST_S, max(_LEAST_S, _REST * answered_s))
