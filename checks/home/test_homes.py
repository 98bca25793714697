"""Homes that home-manager makes as a module of NixOS are what the system says."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, Observations, not_applicable, observe

_MOST_TOLD = 10


@pytest.fixture
def homes(nixos_observations: Observations) -> tuple[observe.Home, ...]:
    """Each home with a ``home-manager-USER.service``."""
    found = nixos_observations.of(observe.homes())
    if not found:
        not_applicable("no home of this host is made by home-manager's module for NixOS")
    unread = [home.user for home in found if not home.is_whole]
    if unread:
        not_applicable(f"unknown: the generation of {', '.join(unread)} could not be read")
    return found


@pytest.mark.nixos_control("HOME-001")
def test_every_home_is_activated_as_the_system_says(
    homes: tuple[observe.Home, ...], nixos_evidence: Evidence
) -> None:
    nixos_evidence.expect({home.user: [] for home in homes})
    for home in homes:
        nixos_evidence.rest_on("unit", home.unit)
    wrong = {home.user: list(home.problems) for home in homes}
    nixos_evidence.observe(wrong)
    told = [f"{user}: {problem}" for user, problems in wrong.items() for problem in problems]
    more = f"; and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
    assert not told, "; ".join(told[:_MOST_TOLD]) + more
