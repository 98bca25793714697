"""What a change of generation did: its end, its units, its links, and what the machine said
meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Self

from pytest_nixos.generations.announced import Announced
from pytest_nixos.generations.links import Links
from pytest_nixos.generations.units import UnitChanges
from pytest_nixos.generations.verb import SwitchEnd, Verb
from pytest_nixos.observe.systemd.activation import parse_activation

__all__ = ["PowerOutcome", "SwitchOutcome"]

_MEANINGS = {
    0: "done",
    1: "usage, boot loader, or a failure before the switch",
    2: "the activation script failed",
    3: "systemd could not be reloaded",
    4: "switched, and units failed",
    100: "not switched: the init interface differs, a reboot is needed",
}


# switch-to-configuration-ng/src/main.rs and nixos/modules/system/activation/pre-switch-check.nix.
_REFUSED = re.compile(r"^Pre-switch check(?:s failed$| '[^']*' failed$)", re.MULTILINE)
_CHECKING = re.compile(r"^Checking switch inhibitors\.\.\.")
_MOST_QUOTED = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOutcome:
    """How one activation ended.

    :param toplevel: store path that was activated.
    :param output: what ``switch-to-configuration`` said, both streams.
    :param announced: units as the output tells.
    :param observed: units as systemd showed them before and after.
    :param unwell_before: units that had failed before, or were being started again and again.
    :param broken_before: activation snippets that had failed at this boot.
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
    unwell_before: frozenset[str] = frozenset()
    broken_before: frozenset[str] = frozenset()
    before: Links | None = None
    after: Links | None = None
    console: tuple[str, ...] = ()
    journal: str = ""
    kernel_warning: str = ""
    duration_s: float = 0.0

    @property
    def end(self) -> SwitchEnd:
        """The end as a closed choice.

        The program ends with any status where the new system refuses to be switched to, often that
        of an earlier system call; only its words tell.
        """
        if self.refusal:
            return SwitchEnd.REFUSED
        return SwitchEnd(self.exit_status) if self.exit_status in _MEANINGS else SwitchEnd.OTHER

    @property
    def switched(self) -> bool:
        """Whether the system changed, even if units failed afterwards."""
        return self.exit_status in (0, 4) and not self.refusal

    @property
    def ended_well(self) -> bool:
        """Whether it did all that it had to: a unit that was unwell or an activation snippet that
        was broken before it is not its fault.

        ``switch-to-configuration`` ends with 4 for any unit that is failed afterwards, whoever
        broke it.
        """
        if self.end is SwitchEnd.ACTIVATION_FAILED:
            broken = self.broken_snippets
            return bool(broken) and broken <= self.broken_before
        if self.end is not SwitchEnd.UNITS_FAILED:
            return self.end is SwitchEnd.DONE
        return bool(self.failed) and self.failed <= self.unwell_before

    @property
    def failed(self) -> frozenset[str]:
        """The units that are failed afterwards, whoever broke them."""
        return frozenset({*self.announced.failed, *self.observed.failed})

    def but_for(self, units: Iterable[str]) -> Self:
        """Return it with more units that were unwell before: those that had failed before an
        earlier switch started them again.
        """
        return replace(self, unwell_before=self.unwell_before | frozenset(units))

    @property
    def broken_snippets(self) -> frozenset[str]:
        """The activation snippets that failed in this switch."""
        return frozenset(failure.snippet for failure in parse_activation(self.output).failures)

    @property
    def verdict(self) -> str:
        """``done`` if it ended well, else :attr:`meaning` with the units that are its fault."""
        if self.ended_well:
            return _MEANINGS[0]
        if self.end is SwitchEnd.ACTIVATION_FAILED:
            snippets = sorted(self.broken_snippets - self.broken_before)
            return f"{self.meaning}: {', '.join(snippets)}" if snippets else self.meaning
        blamed = sorted(self.failed - self.unwell_before)
        return f"{self.meaning}: {', '.join(blamed)}" if blamed else self.meaning

    @property
    def meaning(self) -> str:
        """The end in words."""
        if self.refusal:
            return f"the new system's pre-switch checks refused the switch: {self.refusal}"
        return _MEANINGS.get(self.exit_status, "unknown")

    @property
    def refusal(self) -> str:
        """What the new system's pre-switch checks said if they refused it (a switch inhibitor),
        ``""`` if not.
        """
        if self.exit_status == 0 or _REFUSED.search(self.output) is None:
            return ""
        said = [
            line.strip()
            for line in self.output.splitlines()
            if line.strip() and not _CHECKING.match(line)
        ]
        last = max(n for n, line in enumerate(said) if _REFUSED.match(line))
        return "\n".join(said[: last + 1][-_MOST_QUOTED:])


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
