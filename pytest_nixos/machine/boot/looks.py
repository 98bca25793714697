"""When a boot under way is looked at next.

A look starts programs in the guest, and takes their time from its boot, most where the guest is
emulated. So it is looked at seldom, until its console has a login prompt: gettys are ``Type=idle``
(systemd.service(5)), which start when no job is left, or five seconds later. The prompt is a sign
and no proof, and not every host has one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_nixos.local.timing import Deadline

__all__ = ["Looks"]

# So many times as long as an answer took, within these.
_REST = 30
_LEAST_S = 0.02
_MOST_S = 5.0
# Behind a prompt: as long as an answer takes, or a tenth of the time that was waited, but no longer than this.
_INTERVAL_S = 0.4
_SHARE = 0.1
_STALLED_INTERVAL_S = 2.0
_PROMPT_LOOK_S = 0.05


class Looks:
    """Waits between two looks.

    :param prompts: whether the console has a login prompt.
    :param check: called while it waits; raises if the machine ended or its boot failed.
    """

    def __init__(self, prompts: Callable[[], bool], check: Callable[[], None]) -> None:
        self._prompts = prompts
        self._check = check
        self._began_s = time.monotonic()

    def wait(self, answered_s: float, *, stalled: bool, finished: bool, deadline: Deadline) -> None:
        """Wait until the next look, or until a prompt comes.

        :param answered_s: what the last look took.
        :param stalled: whether the boot stands.
        :param finished: whether it was over at the last look, with jobs that came later.
        """
        near = finished or self._prompts()
        end = deadline.within(self._pause_s(answered_s, stalled=stalled, near=near))
        had_prompt = self._prompts()
        while not end.expired and (had_prompt or not self._prompts()):
            self._check()
            time.sleep(min(_PROMPT_LOOK_S, end.remaining_s))

    def _pause_s(self, answered_s: float, *, stalled: bool, near: bool) -> float:
        if stalled:
            return _STALLED_INTERVAL_S
        if near:
            waited_s = time.monotonic() - self._began_s
            return min(_INTERVAL_S, max(answered_s, _SHARE * waited_s))
        return min(_MOST_S, max(_LEAST_S, _REST * answered_s))
