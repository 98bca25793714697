"""Units that need the internet, of those that failed or do not come up: their last start and what
they said in it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from pytest_nixos.machine.boot.internet import (
    InternetNeed,
    NoWayOut,
    UnitStart,
    last_words,
    last_words_command,
    mount_unit,
)
from pytest_nixos.machine.boot.settle import Job, parse_jobs
from pytest_nixos.nix.config.unit import Unit
from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.store import Observations, Observed
from pytest_nixos.observe.systemd.unit import (
    UnitState,
    askable_units,
    failed_units,
    lively_services,
    shared_units,
)
from pytest_nixos.observe.text import whole

__all__ = ["InternetNeed", "NeedsOfMachine", "mount_unit", "unit_last_words"]

_NEEDED_BY_SETTING = ("Requires", "Requisite", "BindsTo", "ConsistsOf")
_DEEPEST = 8


def unit_last_words(unit: str) -> Probe[tuple[str, ...]]:
    """Ask for what a unit's own processes said in its last start, oldest first."""
    return Probe(
        name=f"last-words:{unit}",
        script=last_words_command(unit),
        parse=lambda output: last_words(output.text),
    )


def unsettled_units() -> Probe[tuple[str, ...]]:
    """Ask for the names of units whose start goes on."""
    return Probe(
        name="activating-units",
        script="systemctl list-units --state=activating --all --plain --no-legend --no-pager --full",
        parse=lambda output: tuple(
            words[0] for line in output.text.splitlines() if (words := line.split())
        ),
    )


def jobs() -> Probe[tuple[Job, ...]]:
    """Ask for systemd's queue of jobs."""
    return Probe(
        name="jobs",
        script="systemctl list-jobs --no-legend --no-pager --full",
        parse=lambda output: parse_jobs(output.text),
    )


class NeedsOfMachine(msgspec.Struct, frozen=True, kw_only=True):
    """Tells which units of a machine need the internet; nothing where the machine reaches it.

    :param no_way_out: what the host declares, ``None`` where the guest has a way out.
    :param observations: asks the machine; ``None`` where it does not answer.
    :param foreseen: units, with suffix, that are likely to be asked about: asked for together.
    """

    no_way_out: NoWayOut | None
    observations: Callable[[], Observations | None]
    foreseen: tuple[str, ...] = ()

    @property
    def has_way_out(self) -> bool:
        """Whether the guest reaches the internet, so that each failure is the host's own."""
        return self.no_way_out is None

    @staticmethod
    def words(needs: Mapping[str, InternetNeed]) -> str:
        """Say for people which units are not judged, and what they asked for."""
        return "needs the internet: not judged: " + ", ".join(str(need) for need in needs.values())

    def questions(self) -> Sequence[Probe[object]]:
        """Return what :meth:`of` asks first about the units that are foreseen, for a trip to take along."""
        if self.no_way_out is None or not self.foreseen:
            return ()
        return (self._states(self.foreseen),)

    def states(self, names: Collection[str]) -> Mapping[str, UnitState]:
        """Return the units of `names` as the machine sees them; empty where it does not answer."""
        look = self.observations()
        return {} if look is None else look.of(self._states(askable_units(names)))

    def _states(self, names: Collection[str]) -> Probe[Mapping[str, UnitState]]:
        asked = self.foreseen if set(names) <= set(self.foreseen) else sorted(names)
        return shared_units((), light=asked, properties=("Job",), name="internet-units")

    def anew(self, machine: Observed) -> NeedsOfMachine:
        """Return the same question to the machine as it is now, and not as it was first seen."""
        return replace(self, observations=lambda: Observations(machine))

    def of(self, names: Collection[str]) -> Mapping[str, InternetNeed]:
        """Return those of `names` that cannot be judged for want of the internet.

        A unit that never ran because one that it requires needs the internet counts with that one,
        and so does one whose start is queued where nothing else holds up the boot.
        """
        if not names:
            return {}
        needs = dict(self._of(names))
        look = self.observations() if self.no_way_out is not None else None
        states = self.states(names) if look is not None else {}
        # The queue is asked for only where a unit has a place in it.
        queued = {n for n, state in states.items() if n not in needs and state.get("Job")}
        if look is None or not queued:
            return needs
        waiting = {job.unit for job in look.of(jobs()) if job.state == "waiting"} & queued
        holder = next(iter(self.holding_up().values()), None) if waiting else None
        if holder is not None:
            needs |= {
                unit: InternetNeed(
                    unit=unit,
                    address=holder.address,
                    why=f"waits behind {holder.unit}",
                    said=holder.said,
                )
                for unit in sorted(waiting)
            }
        return needs

    def _of(self, names: Iterable[str]) -> Mapping[str, InternetNeed]:
        names = tuple(dict.fromkeys(names))
        wanted = askable_units(sorted(names))
        found: dict[str, InternetNeed] = {}
        seen: set[str] = set()
        for _ in range(_DEEPEST):
            fresh = [name for name in wanted if name not in seen]
            if not fresh or self.no_way_out is None:
                break
            seen |= set(fresh)
            found |= self._own(fresh)
            wanted = sorted(
                {n for unit in seen for n in _required(self.no_way_out.units.get(unit))}
            )
        return {name: need for name in names if (need := self._explained(name, found)) is not None}

    def all(self) -> Mapping[str, InternetNeed]:
        """Return every unit that failed or does not come up for want of the internet."""
        look = self.observations() if self.no_way_out is not None else None
        if look is None:
            return {}
        look.prefetch([failed_units(), unsettled_units(), self._services()])
        failed = look.of(failed_units()) or ()
        return self._of([*failed, *look.of(unsettled_units()), *self._restless(look)])

    def holding_up(self) -> Mapping[str, InternetNeed]:
        """Return the units that hold up the boot where they all need the internet, nothing where
        another job is running too.
        """
        look = self.observations() if self.no_way_out is not None else None
        queued = look.of(jobs()) if look is not None else ()
        running = list(dict.fromkeys(job.unit for job in queued if job.state == "running"))
        needs = self._of(running)
        return needs if len(needs) == len(running) else {}

    def _own(self, names: Collection[str]) -> Mapping[str, InternetNeed]:
        look = self.observations()
        if look is None or self.no_way_out is None:
            return {}
        states = look.of(self._states(names))
        unwell = [name for name in names if name in states and _is_unwell(states[name])]
        look.prefetch([unit_last_words(name) for name in unwell])
        needs = {
            name: self.no_way_out.need(name, _start(states[name], look.of(unit_last_words(name))))
            for name in unwell
        }
        return {name: need for name, need in needs.items() if need is not None}

    def _restless(self, look: Observations) -> Iterable[str]:
        """Services that wait for their next start; no list of failed units has them."""
        states = look.of(self._services())
        return [name for name, state in states.items() if state.is_restless]

    def _services(self) -> Probe[Mapping[str, UnitState]]:
        declared = self.no_way_out.units if self.no_way_out is not None else ()
        return lively_services([name for name in declared if name.endswith(".service")])

    def _explained(
        self, name: str, found: Mapping[str, InternetNeed], depth: int = _DEEPEST
    ) -> InternetNeed | None:
        if name in found or depth == 0 or self.no_way_out is None:
            return found.get(name)
        for required in _required(self.no_way_out.units.get(name)):
            need = self._explained(required, found, depth - 1)
            if need is not None:
                return InternetNeed(
                    unit=name, address=need.address, why=f"requires {required}", said=need.said
                )
        return None


def _is_unwell(state: UnitState) -> bool:
    return state.is_failed or state.get("ActiveState") == "activating" or state.is_restless


def _start(state: UnitState, said: tuple[str, ...]) -> UnitStart:
    restless = state.is_restless
    result = state.get("Result") or "success"
    return UnitStart(
        # Between two tries it does not hang: its last one is over.
        active="failed" if restless else state.get("ActiveState"),
        result="exit-code" if restless and result == "success" else result,
        status=whole(state.get("ExecMainStatus")) or 0,
        said=said,
    )


def _required(unit: Unit | None) -> tuple[str, ...]:
    if unit is None:
        return ()
    values = [v for key in _NEEDED_BY_SETTING for v in unit.setting("Unit", key)]
    return tuple(dict.fromkeys(name for value in values for name in value.split()))
