"""The units that an upgrade is compared by."""

from __future__ import annotations

from pytest_nixos.generations.admission import run_guest
from pytest_nixos.generations.links import LOOK_WITH_UNITS, Moment
from pytest_nixos.machine.base import Machine

__all__ = ["unit_states"]


def unit_states(machine: Machine) -> dict[str, str]:
    """Return services, sockets, timers and mounts of a machine by name, each with its state.

    Left out is what starts when it is asked for: instances of templates, and services that the bus
    starts.
    """
    units = Moment.parse(run_guest(machine, LOOK_WITH_UNITS).stdout_text).units
    return {
        name: unit.get("ActiveState")
        for name, unit in sorted(units.items())
        if name.endswith((".service", ".socket", ".timer", ".mount"))
        and "@" not in name
        and not unit.get("BusName")
    }
