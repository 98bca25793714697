"""What systemd makes of the units that a host declares: fixtures of the suite."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_nixos import HostConfig, Observations, Unit, observe

__all__ = ["NOT_LOADED", "States", "declared_here", "said_of_files", "states_now"]

States = Mapping[str, observe.UnitState]
#: What systemd says of the loading of a unit that it cannot start.
NOT_LOADED = frozenset({"not-found", "bad-setting", "error"})


@pytest.fixture(name="declared", scope="module")
def declared_here(nixos_host_config: HostConfig) -> Mapping[str, Unit]:
    """The units that the host declares, without templates and without what it switches off."""
    return observe.declared_units(nixos_host_config)


@pytest.fixture(name="states")
def states_now(
    declared: Mapping[str, Unit], nixos_host_config: HostConfig, nixos_observations: Observations
) -> States:
    """Every declared unit, and what wants one, as systemd sees it now."""
    wanting = {target for unit in declared.values() for target in unit.wanted_by}
    seen = nixos_observations.of(observe.declared_states(nixos_host_config))
    found = {name: seen[name] for name in sorted({*declared, *wanting}) if name in seen}
    assert found, "systemd told nothing about any unit"
    return found


@pytest.fixture(name="said")
def said_of_files(
    nixos_host_config: HostConfig, nixos_observations: Observations
) -> observe.UnitFileReport:
    """What the guest's systemd says of the declared unit files, if it says anything."""
    return nixos_observations.of(observe.declared_files(nixos_host_config))
