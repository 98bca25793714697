"""Units of users: what the host declares for them and what they have at home."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, Observations, not_applicable, observe

from .of_users import own_managers, remedy_of_user_units, wanted_by_none


@pytest.mark.nixos_control("UNIT-009")
def test_units_of_users_load_and_work(
    nixos_observations: Observations, nixos_place: str, nixos_evidence: Evidence
) -> None:
    users = nixos_observations.of(observe.user_units())
    managers = own_managers(users, nixos_place)
    if not users.answered:
        not_applicable("unknown: the guest has no systemd-analyze to ask")
    if not (users.count or managers or users.dangling):
        not_applicable("the host declares no user unit, and no user has one or a session")
    nixos_evidence.expect("every unit of a user is loaded as written and works")
    wrong = [
        *(f"{unit}: systemd refuses it" for unit in users.report.refused),
        *(f"{found.unit} line {found.line}: {found.text}" for found in users.report.ignored),
        *(f"{cycle.unit}: ordering cycle with {cycle.at}" for cycle in users.report.cycles),
        *(f"{unit} of {user} has failed" for user, unit in users.failed if user in managers),
        *(
            f"{unit}: no login starts it, since {' and '.join(users.absent[unit])} is none of a user's targets"
            for unit in wanted_by_none(users)
        ),
        *(f"{path} leads to a store path that is gone" for path in users.dangling),
    ]
    nixos_evidence.observe({"wrong": wrong, "sessions": managers})
    nixos_evidence.remedy = remedy_of_user_units(users)
    assert not wrong, "; ".join(wrong)
