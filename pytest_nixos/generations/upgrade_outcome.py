"""What an upgrade test found out about the way from the old system to the new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["UpgradeOutcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeOutcome:
    """How the new system came to run, and what a fresh boot of it has otherwise.

    :param refusal: what the new system's pre-switch checks said against a switch; it came by boot
        and reboot then.
    :param stale: services that still run what the old system gave them, each with the reasons; none
        after a reboot.
    :param left: services that NixOS leaves to the next boot by design, and that have run since
        before the switch.
    :param fresh_problem: why the new system did not boot by itself, ``""`` if it did.
    :param units: units whose state differs: by name, after the upgrade and in a fresh boot;
        ``None`` where it is not loaded.
    :param ports: ports that can be reached, likewise.
    """

    refusal: str = ""
    stale: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    fresh_problem: str = ""
    units: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    ports: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)

    @property
    def failed_afresh(self) -> tuple[str, ...]:
        """Units that failed in the fresh boot and not after the upgrade."""
        return tuple(
            name for name, (upgraded, fresh) in self.units.items() if fresh == "failed" != upgraded
        )
