"""What was wrong with a machine before an activation, so that it is not blamed for that."""

from __future__ import annotations

from pytest_nixos.generations.links import Moment
from pytest_nixos.generations.units import flapping_units, unwell_units
from pytest_nixos.machine.base import Machine
from pytest_nixos.observe.base import observe
from pytest_nixos.observe.systemd.activation import boot_activation, parse_activation
from pytest_nixos.observe.systemd.unit_event import unit_history

__all__ = ["broken_before", "unwell_before"]

# What switch-to-configuration ends with where the activation script failed, and where units did.
_ACTIVATION = 2
_UNITS = 4


def unwell_before(machine: Machine, moment: Moment, exit_status: int) -> frozenset[str]:
    """Return the units that were unwell at a moment before the activation.

    :param exit_status: of the activation; where some unit failed in it, the journal is asked for
        those that only looked well between two tries.
    """
    unwell = unwell_units(moment.units)
    if exit_status != _UNITS:
        return unwell
    return unwell | flapping_units(observe(machine.run, unit_history()), moment.at_s)


def broken_before(machine: Machine, exit_status: int) -> frozenset[str]:
    """Return the activation snippets that failed at this boot already.

    :param exit_status: of the activation; nothing is asked where its script did not fail.
    """
    if exit_status != _ACTIVATION:
        return frozenset()
    said = "\n".join(line.text for line in machine.console.lines)
    boot = observe(machine.run, boot_activation())
    failures = (*parse_activation(said).failures, *boot.failures)
    return frozenset(failure.snippet for failure in failures)
