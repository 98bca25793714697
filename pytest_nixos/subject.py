"""What a verdict rests on, and what a finding says is broken: the links between a cause and its
echoes.
"""

from __future__ import annotations

import enum
from typing import Self

import msgspec

__all__ = ["MACHINE", "MEMORY", "Subject", "SubjectKind"]


class SubjectKind(enum.StrEnum):
    """Kinds of subjects, in the order in which one explains another: a machine that is down
    explains all of it.
    """

    MACHINE = "machine"
    INTERNET = "internet"
    MEMORY = "memory"
    ACTIVATION = "activation"
    SECRET = "secret"  # noqa: S105 - a kind of subject
    MOUNT = "mount"
    NETWORK = "network"
    UNIT = "unit"
    PORT = "port"
    RULE = "rule"


class Subject(msgspec.Struct, frozen=True):
    """One thing of a host that works or does not: ``unit:sshd.service``, ``secret:db-password``,
    ``machine``.
    """

    kind: SubjectKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.name}" if self.name else self.kind.value

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what :meth:`__str__` wrote.

        :raises ValueError: if it names no kind.
        """
        kind, _, name = text.partition(":")
        return cls(SubjectKind(kind), name)


MACHINE = Subject(SubjectKind.MACHINE)
MEMORY = Subject(SubjectKind.MEMORY)
