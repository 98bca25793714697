"""What was seen for one control: a value, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Seen", "Sight", "Unseen"]

Json = Any


@dataclass(frozen=True, slots=True)
class Seen:
    """A value; ``None`` means that the machine was asked and has no such thing."""

    value: Json


@dataclass(frozen=True, slots=True)
class Unseen:
    """No value.

    :param applicable: whether a value was to be expected; if not, the control does not apply to the
        machine.
    """

    reason: str
    applicable: bool = True


Sight = Seen | Unseen
