"""What a host's shared machine is asked for all data controls, in one trip: kept for the session, since
hundreds of controls look at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_nixos.machine.base import Machine
from pytest_nixos.observe.internet import NeedsOfMachine
from pytest_nixos.observe.store import Observations
from pytest_nixos.standards.look import Parsed, probes
from pytest_nixos.standards.rests_on import foreseen_units

if TYPE_CHECKING:
    from pytest_nixos.plugin.session import NixosSession

__all__ = ["FirstLook", "first_look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """One look at a machine.

    :param machine: that is looked at.
    :param store: what it has answered.
    :param seen: parsed observations by kind.
    :param needs: tells by the same look which units need an internet that is not there: a data control is
        judged by what was seen then, and not by what became of a unit later.
    """

    machine: Machine
    store: Observations
    seen: Parsed
    needs: NeedsOfMachine

    def take(self) -> Mapping[str, object]:
        """Return parsed observations by kind, of this epoch of the machine, read in one round trip."""
        self.store.prefetch([*self.seen.asked.values(), *self.needs.questions()])
        return self.seen


def first_look(session: NixosSession, key: str, machine: Machine, store: Observations) -> FirstLook:
    """Return what a host's shared machine is asked for the data controls of the run."""
    look = session.looks.get(key)
    if look is None or look.store is not store:
        asked = (session.observed_controls, session.host_config(key), session.backend_name(key))
        look = session.looks[key] = FirstLook(
            machine=machine,
            store=store,
            seen=Parsed(probes(*asked), store),
            needs=session.needs_of(key, lambda: store, foreseen=foreseen_units(*asked)),
        )
    return look
