"""After an upgrade: nothing of the old system is in force, and the new one does not need it to
boot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_nixos import Evidence, not_applicable

if TYPE_CHECKING:
    from pytest_nixos import UpgradeOutcome


@pytest.mark.nixos_control("UPG-001")
def test_no_service_runs_what_the_old_system_gave_it(
    nixos_upgrade: UpgradeOutcome | None, nixos_evidence: Evidence
) -> None:
    upgrade = _upgraded(nixos_upgrade)
    if upgrade.refusal:
        nixos_evidence.attach("pre-switch checks", upgrade.refusal)
        not_applicable("the new system refused a switch and was booted: every service began anew")
    nixos_evidence.expect({})
    nixos_evidence.observe({name: list(reasons) for name, reasons in upgrade.stale.items()})
    names = ", ".join(upgrade.stale)
    assert not upgrade.stale, f"{names}: still runs what the old generation gave it"


@pytest.mark.nixos_control("UPG-002")
def test_the_new_system_boots_by_itself(
    nixos_upgrade: UpgradeOutcome | None, nixos_evidence: Evidence
) -> None:
    upgrade = _upgraded(nixos_upgrade)
    nixos_evidence.expect({"boot": "", "failed": []})
    nixos_evidence.observe({"boot": upgrade.fresh_problem, "failed": list(upgrade.failed_afresh)})
    assert not upgrade.fresh_problem, "the new system does not boot by itself"
    assert not upgrade.failed_afresh, "units fail in a fresh boot and not after the upgrade"


def _upgraded(upgrade: UpgradeOutcome | None) -> UpgradeOutcome:
    if upgrade is None:
        not_applicable("there is no upgrade to look at: --nixos-upgrade-from, stage new")
    return upgrade
