"""The flake, as Nix itself judges it: the lock file fits, all outputs evaluate, a second build
gives the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_nixos import Evidence, Flake, HostConfig, Machine, not_applicable


@pytest.mark.nixos_control("FLK-002")
def test_lock_file_fits(nixos_flake: Flake, nixos_evidence: Evidence) -> None:
    nixos_evidence.expect("flake.lock needs no change")
    answer = nixos_flake.lock_answer()
    nixos_evidence.observe("needs no change" if answer.succeeded else answer.said)
    assert answer.succeeded, "flake.lock does not fit flake.nix: Nix would have to change it"


@pytest.mark.nixos_control("FLK-007")
def test_flake_check_passes(
    nixos_flake: Flake, nixos_evidence: Evidence, nixos_progress: Callable[[str], None]
) -> None:
    nixos_progress("nix flake check --no-build")
    nixos_evidence.expect("exit status 0")
    answer = nixos_flake.check_answer()
    if answer.warnings:
        nixos_evidence.attach("warnings", "\n".join(answer.warnings))
    nixos_evidence.observe("exit status 0" if answer.succeeded else answer.said)
    assert answer.succeeded, f"nix flake check: {answer.said.splitlines()[0]}"


@pytest.mark.nixos_control("FLK-011")
def test_a_rebuild_gives_the_same(
    nixos_flake: Flake,
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_evidence: Evidence,
    nixos_progress: Callable[[str], None],
) -> None:
    if not Path(nixos_host_config.derivation).exists() or not nixos_machine.spec.system.exists():
        not_applicable("the system was not built on this machine")
    nixos_progress("building the host's units, scripts and files a second time")
    rebuild = nixos_flake.rebuild(nixos_host_config.derivation)
    if not rebuild.tried:
        not_applicable("nothing of the system was built on this machine")
    nixos_evidence.expect({"built again": len(rebuild.tried), "different": []})
    nixos_evidence.observe(
        {"built again": len(rebuild.tried), "different": list(rebuild.different)}
    )
    for failure in rebuild.failures:
        nixos_evidence.attach("nix build --rebuild", failure)
    assert not rebuild.failures, "could not be built a second time"
    assert not rebuild.different, f"differs when built again: {', '.join(rebuild.different)}"
