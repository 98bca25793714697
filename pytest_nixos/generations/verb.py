"""What ``switch-to-configuration`` is asked to do, and how it ends."""

from __future__ import annotations

import enum

__all__ = ["SwitchEnd", "Verb"]


class Verb(enum.Enum):
    """Actions of ``switch-to-configuration``."""

    SWITCH = "switch"
    BOOT = "boot"
    TEST = "test"
    DRY_ACTIVATE = "dry-activate"


class SwitchEnd(enum.Enum):
    """How ``switch-to-configuration`` ended, by its exit status; of several failures the last
    one wins.
    """

    DONE = 0
    NOT_BEGUN = 1
    ACTIVATION_FAILED = 2
    RELOAD_FAILED = 3
    UNITS_FAILED = 4
    REBOOT_NEEDED = 100
    REFUSED = -2
    OTHER = -1
