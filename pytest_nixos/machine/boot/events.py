"""What a backend tells while a machine comes up; whoever listens decides what to print."""

from __future__ import annotations

import enum
from collections.abc import Callable

import msgspec

__all__ = ["BootEvent", "BootEventKind", "BootListener", "ignore_boot_event"]


class BootEventKind(enum.Enum):
    """Sorts of news during a boot."""

    NO_KVM = "no KVM"
    NO_SANDBOX = "no sandbox"
    CLOSED_PORTS = "closed ports"
    NO_DISPLAY = "no display"
    OWN_DISKS = "own disks"
    PHASE = "phase"
    TROUBLE = "trouble"
    CHANNEL = "channel"
    STUCK_UNIT = "stuck unit"
    SETTLED = "settled"
    SNAPSHOT = "snapshot"
    STORE_IMAGE = "store image"


class BootEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of news.

    :param machine: name of the host.
    :param at_s: seconds since the machine's start.
    :param text: one line for people.
    """

    kind: BootEventKind
    machine: str
    at_s: float
    text: str


# Called from any thread; must return soon and not raise.
BootListener = Callable[[BootEvent], None]


def ignore_boot_event(_event: BootEvent) -> None:
    """Listen to nothing."""
