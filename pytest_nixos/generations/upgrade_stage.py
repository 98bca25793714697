"""The stages of an upgrade test."""

from __future__ import annotations

import enum

__all__ = ["Stage"]


class Stage(enum.StrEnum):
    """Where an upgrade test is; the order of the members is the order of the stages."""

    #: the system that is upgraded from, booted
    OLD = "old"
    #: the tested system, switched to
    NEW = "new"
    #: the old system again, rolled back to
    BACK = "back"

    @property
    def number(self) -> int:
        """Its place in the order, from 0."""
        return list(Stage).index(self)

    def of(self, subject: str) -> str:
        """Return the key of a host in this stage: ``web@new``."""
        return f"{subject}@{self.value}"
