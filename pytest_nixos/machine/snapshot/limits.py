"""What the cache of snapshots may take; a module of its own, so that reading options loads nothing else."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CacheLimits"]

_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLimits:
    """What all snapshots together may take.

    :param most_bytes: room on disk; those used least recently go first.
    :param most_age_s: seconds since its last use after which one is removed.
    """

    most_bytes: int = 10 << 30
    most_age_s: float = 30 * _DAY_S
