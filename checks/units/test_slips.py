"""What units write that systemd takes without a word, and that does not do what it looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from pytest_nixos import Evidence, HostConfig, Observations, Unit, not_applicable, observe

from .commands import unread_commands
from .conditions import ImpossibleCondition, impossible_conditions
from .hidden import HiddenPath, hidden_paths
from .idle import OF_SYSTEMD
from .look import (  # noqa: F401 - fixtures
    NOT_LOADED,
    States,
    declared_here,
    states_now,
)
from .naming import asked_names, remedy_of, unknown_names
from .remedies import once


@pytest.mark.nixos_control("UNIT-015")
def test_no_command_waits_for_a_shell(
    declared: Mapping[str, Unit], nixos_evidence: Evidence
) -> None:
    services = {name: unit for name, unit in declared.items() if name.endswith(".service")}
    if not services:
        not_applicable("the host declares no service")
    nixos_evidence.expect("each command means the same without a shell")
    found = {
        name: unread for name, unit in services.items() if (unread := list(unread_commands(unit)))
    }
    nixos_evidence.observe({name: [one.why for one in unread] for name, unread in found.items()})
    nixos_evidence.remedy = once(one.remedy for unread in found.values() for one in unread)
    assert not found, "; ".join(f"{name}: {unread[0].why}" for name, unread in found.items())


@pytest.mark.nixos_control("UNIT-016")
def test_units_name_units_that_are_there(
    declared: Mapping[str, Unit],
    states: States,
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    asked = asked_names(declared)
    if not asked:
        not_applicable("no declared unit names another one")
    nixos_evidence.expect("each name is that of a unit, or nowhere near one")
    seen = nixos_observations.of(observe.units(sorted(asked), name="named-units"))
    assert seen, "systemd told nothing about any unit"
    missing = {name for name, state in seen.items() if state.get("LoadState") == "not-found"}
    known = {
        name for name, state in {**states, **seen}.items() if state.get("LoadState") == "loaded"
    }
    known |= observe.declared_templates(nixos_host_config)
    unknown = list(unknown_names(declared, missing, sorted({*known, *OF_SYSTEMD})))
    nixos_evidence.observe([str(one) for one in unknown])
    nixos_evidence.remedy = once(remedy_of(one, declared[one.unit]) for one in unknown)
    assert not unknown, "; ".join(map(str, unknown))


@pytest.mark.nixos_control("UNIT-017")
def test_no_condition_names_what_systemd_does_not_know(
    declared: Mapping[str, Unit], nixos_evidence: Evidence
) -> None:
    conditional = [
        unit
        for unit in declared.values()
        if any(key.startswith(("Condition", "Assert")) for key in unit.settings.get("Unit", {}))
    ]
    if not conditional:
        not_applicable("no declared unit has a condition")
    nixos_evidence.expect("each condition can hold on some machine")
    found = [one for unit in conditional for one in impossible_conditions(unit)]
    _refuse(found, nixos_evidence)


@pytest.mark.nixos_control("UNIT-018")
def test_no_service_names_a_path_that_its_sandbox_hides(
    declared: Mapping[str, Unit], nixos_evidence: Evidence
) -> None:
    services = [unit for name, unit in declared.items() if name.endswith(".service")]
    if not services:
        not_applicable("the host declares no service")
    nixos_evidence.expect("each service sees the paths that its commands and environment name")
    found = [one for unit in services for one in hidden_paths(unit)]
    _refuse(found, nixos_evidence)


def _refuse(found: Sequence[ImpossibleCondition | HiddenPath], evidence: Evidence) -> None:
    """Fail of what was found, with what mends it."""
    evidence.observe([str(one) for one in found])
    evidence.remedy = once(one.remedy for one in found)
    assert not found, "; ".join(map(str, found))
