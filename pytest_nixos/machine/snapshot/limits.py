"""What the cache of snapshots may take; separate, so that reading options imports nothing else."""

from __future__ import annotations

from typing import Self

import msgspec

__all__ = ["DEFAULT_CACHE_DAYS", "DEFAULT_CACHE_GIB", "CacheLimits"]

DEFAULT_CACHE_GIB = 10.0
DEFAULT_CACHE_DAYS = 30.0

_DAY_S = 86400.0
_GIB = 1 << 30


class CacheLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What all snapshots together may take.

    :param most_bytes: room on disk; those used least recently go first.
    :param most_age_s: seconds since its last use after which one is removed.
    """

    most_bytes: int = int(DEFAULT_CACHE_GIB * _GIB)
    most_age_s: float = DEFAULT_CACHE_DAYS * _DAY_S

    @classmethod
    def of(cls, *, size_gib: float, age_days: float) -> Self:
        """Return limits in the units that people set them in."""
        return cls(most_bytes=int(size_gib * _GIB), most_age_s=age_days * _DAY_S)
