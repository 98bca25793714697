"""The error of a replay that cannot judge; apart from what reads recordings, which few runs load."""

from __future__ import annotations

from pytest_nixos.errors import NixosError

__all__ = ["NotRecorded"]


class NotRecorded(NixosError):
    """What a control has to see is not in the recording, so that nobody can judge it."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"not judged: {why}",
            remedy="record the host again with this profile and release: --nixos-record DIR",
        )
