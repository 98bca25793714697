"""What a host's shared machine is asked for all data controls, in one trip: kept for the session, since
hundreds of controls look at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import Machine
from pytest_nixos.observe.base import Probe, observe
from pytest_nixos.observe.network.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from pytest_nixos.observe.systemd.unit import UnitState, askable_units, units
from pytest_nixos.observe.systemd.waiting import hopeless
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.look import Parsed, probes, unready
from pytest_nixos.standards.judging.rests_on import foreseen_units, rests_on_units

if TYPE_CHECKING:
    from pytest_nixos.plugin.session import NixosSession

__all__ = ["FirstLook", "first_look"]

# From a unit that is active to a program that answers: Type=simple and exec are active when it starts.
_ANSWERING_S = 30.0
_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """One look at a machine.

    :param machine: that is looked at.
    :param store: what it has answered.
    :param seen: parsed observations by kind.
    :param needs: tells by the same look which units need an internet that is not there: a data control is
        judged by what was seen then, and not by what became of a unit later.
    :param unready: tells the controls whose servers have not begun to answer.
    """

    machine: Machine
    store: Observations
    seen: Parsed
    needs: NeedsOfMachine
    unready: Callable[[], Iterable[Control]] = lambda: ()
    _awaited: set[int] = field(default_factory=set, init=False, repr=False)

    def questions(self) -> Sequence[Probe[object]]:
        """Return what :meth:`take` asks the machine."""
        return (*self.seen.asked.values(), *self.needs.questions())

    def take(self) -> Mapping[str, object]:
        """Return parsed observations by kind, of this epoch of the machine, read in one round trip;
        servers that do not answer yet are asked again, for a while that all share.
        """
        self.store.prefetch(self.questions())
        if self.machine.epoch not in self._awaited:
            self._awaited.add(self.machine.epoch)
            self._await_servers()
        return self.seen

    def _await_servers(self) -> None:
        deadline: Deadline | None = None
        while kinds := self._kinds_to_come():
            deadline = deadline or self.machine.deadline(_ANSWERING_S)
            if deadline.expired:
                return
            time.sleep(min(_INTERVAL_S, deadline.remaining_s))
            self.store.renew([self.seen.asked[kind] for kind in kinds])

    def _kinds_to_come(self) -> set[str]:
        """Return the kinds by which a server is asked that may still begin to answer."""
        resting = [
            (control.observed.kind, askable_units(s.name for s in rests_on_units(control)))
            for control in self.unready()
            if control.observed is not None
        ]
        names = sorted({name for _, names in resting for name in names})
        states = observe(self.machine.run, units(names)) if names else {}
        return {
            kind
            for kind, names in resting
            if not names or any(_may_come(states.get(name)) for name in names)
        }


def _may_come(state: UnitState | None) -> bool:
    """Whether the program of a unit may still begin to answer; one of another name tells nothing."""
    if state is None or not state.exists:
        return True
    return not hopeless(state) and state.get("ActiveState") != "inactive"


def first_look(session: NixosSession, key: str, machine: Machine, store: Observations) -> FirstLook:
    """Return what a host's shared machine is asked for the data controls of the run."""
    look = session.looks.get(key)
    if look is None or look.store is not store:
        controls, host, place = asked = (
            session.observed_controls,
            session.host_config(key),
            session.backend_name(key),
        )
        seen = Parsed(probes(*asked), store)
        look = session.looks[key] = FirstLook(
            machine=machine,
            store=store,
            seen=seen,
            unready=lambda: unready(controls, seen, host, place),
            needs=session.needs_of(key, lambda: store, foreseen=foreseen_units(*asked)),
        )
    return look
