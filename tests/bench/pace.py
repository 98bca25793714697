"""How fast this machine is at this moment: a fixed piece of work, timed. Kept beside the figures, it tells
a slower machine from a slower program.
"""

from __future__ import annotations

import hashlib
import statistics
import subprocess
import time

__all__ = ["pace_ms"]

_TRIES = 5
_STEPS = 300_000
_BYTES = b"\0" * (8 << 20)
_PROGRAMS = 10


def pace_ms(tries: int = _TRIES) -> float:
    """Return the milliseconds that the work takes by the clock, as all figures here: the median of
    several tries.
    """
    return statistics.median(_once() for _ in range(tries))


def _once() -> float:
    """Compute, hash memory and start programs, as a run of pytest does."""
    started_s = time.monotonic()
    sum(number % 7 for number in range(_STEPS))
    hashlib.sha256(_BYTES).digest()
    for _ in range(_PROGRAMS):
        subprocess.run(["true"], check=True)
    return (time.monotonic() - started_s) * 1000
