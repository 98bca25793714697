"""What a change of generation did: its end, its units, its links, and what the machine said meanwhile."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from pytest_nixos.generations.announced import Announced
from pytest_nixos.generations.links import Links, Verb
from pytest_nixos.generations.units import UnitChanges

__all__ = ["PowerOutcome", "SwitchEnd", "SwitchOutcome"]

_MEANINGS = {
    0: "done",
    1: "usage, boot loader, or a failure before the switch",
    2: "the activation script failed",
    3: "systemd could not be reloaded",
    4: "switched, and units failed",
    100: "not switched: the init interface differs, a reboot is needed",
}


class SwitchEnd(enum.Enum):
    """Exit statuses of ``switch-to-configuration``; of several failures the last one wins."""

    DONE = 0
    NOT_BEGUN = 1
    ACTIVATION_FAILED = 2
    RELOAD_FAILED = 3
    UNITS_FAILED = 4
    REBOOT_NEEDED = 100
    OTHER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOutcome:
    """How one activation ended.

    :param toplevel: store path that was activated.
    :param output: what ``switch-to-configuration`` said, both streams.
    :param announced: units as the output tells.
    :param observed: units as systemd showed them before and after.
    :param before: links before the verb, the profile's change included.
    :param after: links after it.
    :param console: console lines of this span, the last 400.
    :param journal: journal of this span, its last 64 KiB.
    :param kernel_warning: why modules may be missing until the next boot, ``""`` if they are not.
    :param duration_s: seconds of the activation itself.
    """

    verb: Verb
    toplevel: str
    exit_status: int
    output: str
    announced: Announced = field(default_factory=Announced)
    observed: UnitChanges = field(default_factory=UnitChanges)
    before: Links | None = None
    after: Links | None = None
    console: tuple[str, ...] = ()
    journal: str = ""
    kernel_warning: str = ""
    duration_s: float = 0.0

    @property
    def end(self) -> SwitchEnd:
        """The exit status as a closed choice."""
        return SwitchEnd(self.exit_status) if self.exit_status in _MEANINGS else SwitchEnd.OTHER

    @property
    def switched(self) -> bool:
        """Whether the system changed, even if units failed afterwards."""
        return self.exit_status in (0, 4)

    @property
    def meaning(self) -> str:
        """The exit status in words."""
        return _MEANINGS.get(self.exit_status, "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOutcome:
    """What a reboot or a loss of power did.

    :param before: links before it.
    :param after: links after it; equal to `before` where the machine stays off.
    :param console: console lines of this span, the last 400.
    :param journal: the journal of the boot that followed, its last 64 KiB.
    :param duration_s: seconds until the machine was up again.
    """

    before: Links
    after: Links
    console: tuple[str, ...]
    journal: str
    duration_s: float

    @property
    def changed_generation(self) -> bool:
        """Whether another generation runs than before."""
        return self.before.current != self.after.current
