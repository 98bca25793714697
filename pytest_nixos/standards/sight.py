"""What a probe saw for one control: a value, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.observe.base import Probe

__all__ = ["Reader", "Seen", "Sight", "Unseen"]

Json = Any


@dataclass(frozen=True, slots=True)
class Seen:
    """A value; ``None`` means that the machine was asked and has no such thing."""

    value: Json


@dataclass(frozen=True, slots=True)
class Unseen:
    """No value.

    :param applicable: whether a value was to be expected; if not, the control does not apply to the machine.
    """

    reason: str
    applicable: bool = True


Sight = Seen | Unseen
Parameters = Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How one kind is observed.

    :param probe: makes the one probe that reads everything the given parameters ask for; ``None`` for
        kinds that are read on the host machine.
    :param pick: finds one control's value in what the probe parsed.
    """

    probe: Callable[[Sequence[Parameters], HostConfig], Probe[Any]] | None
    pick: Callable[[Any, Parameters, HostConfig], Sight]
