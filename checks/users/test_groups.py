"""Accounts are in the groups that the host declares for them."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, not_applicable

from .groups import missing_memberships, read_groups, with_groups

_READ = 'printf "%s\\n" "$(</etc/group)"'


@pytest.mark.nixos_control("AUTH-040")
def test_every_account_is_in_its_groups(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    declared = {u.name: list(u.extra_groups) for u in nixos_host_config.users.values() if u.enabled}
    expected = {name: groups for name, groups in declared.items() if groups}
    if not expected:
        not_applicable("no account is declared to be in further groups")
    groups = read_groups(nixos_machine.run(_READ).stdout_text)
    if not groups:
        not_applicable("unknown: /etc/group cannot be read")
    nixos_evidence.expect(expected)
    missing = missing_memberships(nixos_host_config, groups)
    nixos_evidence.observe({name: dict(wrong) for name, wrong in missing.items()})
    nixos_evidence.remedy = with_groups(nixos_host_config, missing, groups)
    assert not missing, "; ".join(
        f"{name}: {', '.join(f'{group}: {why}' for group, why in wrong.items())}"
        for name, wrong in missing.items()
    )
