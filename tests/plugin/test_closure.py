"""The closure is built and read for the controls that need it, and no machine is started for it."""

from __future__ import annotations

from tests.plugin.field import Field


def test_a_control_of_the_flake_builds_and_boots_nothing(field: Field) -> None:
    """The profile holds SEC-001, whose closure scan was started for every control read on the host
    machine.
    """
    field.pytester.path.joinpath("flake.nix").write_text("{ }")
    result = field.run("--nixos-flake", ".#web", "-k", "SEC-006", "--nixos-report", "json:r.json")
    result.assert_outcomes(passed=1, deselected=result.parseoutcomes()["deselected"])
    assert field.machine_log == []


def test_a_scan_of_the_closure_builds_and_does_not_boot(field: Field) -> None:
    result = field.run("--nixos-flake", ".#web", "-k", "SEC-001")
    # The fake Nix builds, and knows no closures: the scan got that far.
    result.stdout.fnmatch_lines(["*unexpected arguments*path-info*"])
    assert field.machine_log == []
