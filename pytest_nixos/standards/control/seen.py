"""What was seen for one control: a value, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["EVERYBODY", "EVERYBODY_ELSE", "INTERFACE", "Seen", "Sight", "Unseen"]

Json = Any
#: What a finding calls the subjects that no case is about.
EVERYBODY_ELSE = "everybody else"
#: The same where those have it wrong as well.
EVERYBODY = "everybody"
#: How the case of a network interface begins.
INTERFACE = "interface "


class Seen(msgspec.Struct, frozen=True):
    """A value; ``None`` means that the machine was asked and has no such thing.

    :param cases: other values of the same thing, by the case in which it has them (a user, an
        address); each has to hold as well.
    """

    value: Json
    cases: Mapping[str, Json] = msgspec.field(default_factory=dict)


class Unseen(msgspec.Struct, frozen=True):
    """No value.

    :param applicable: whether a value was to be expected; if not, the control does not apply to the
        machine.
    """

    reason: str
    applicable: bool = True


Sight = Seen | Unseen
