"""Upgrade tests: what they upgrade from, and what differs between their stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.generations.upgrade_stage import Stage
from pytest_nixos.nix.building.store import closure_size
from pytest_nixos.nix.command.refs import FlakeRef, HostRef, UpgradeFrom
from pytest_nixos.report.comparing.upgrade import compare_stages, packages_of, upgrade_lines

NEW = HostRef(FlakeRef("github:me/infra/main"), "web")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v1.2", "github:me/infra/v1.2#web"),
        ("github:me/infra/stable", "github:me/infra/stable#web"),
        ("github:me/infra/stable#www", "github:me/infra/stable#www"),
        ("path:/srv/old", "path:/srv/old#web"),
        ("./old", "/work/old#web"),
    ],
)
def test_what_is_upgraded_from(text: str, expected: str) -> None:
    assert str(UpgradeFrom.parse(text, cwd=Path("/work")).of(NEW)) == expected


def test_malformed_reference() -> None:
    with pytest.raises(SettingsError, match="no host name"):
        UpgradeFrom.parse("github:me/infra#", cwd=Path("/work"))


HASH = "0" * 31 + "a"


def test_packages() -> None:
    names = ["nginx-1.26.1", "nginx-1.27.0", "perl5.38.2-URI-5.21", "unit-nginx.service", "etc"]
    assert packages_of(f"/nix/store/{HASH}-{name}" for name in names) == {
        "nginx": ["1.26.1", "1.27.0"],
        "perl5.38.2-URI": ["5.21"],
    }


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ('[{"path":"/nix/store/x","closureSize":42}]', 42),
        ('{"/nix/store/x":{"closureSize":42}}', 42),
        ("[]", None),
        ("warning", None),
        ('[{"valid":false}]', None),
    ],
)
def test_closure_size(text: str, size: int | None) -> None:
    assert closure_size(text) == size


def _finding(host: str, control: str, outcome: Outcome) -> Finding:
    return Finding(
        control=control,
        title="",
        suite="",
        host=host,
        backend="vm",
        severity=Severity.LOW,
        outcome=outcome,
        judged_on="machine",
        reason="",
        threat="",
        remedy="",
        node_id=f"test_x[{host}]",
    )


def _state(**more: Any) -> dict[str, Any]:
    return {
        "toplevel": "a",
        "release": "1",
        "units": {"sshd.service": "active"},
        "ports": ["tcp/22"],
        "packages": {"nginx": ["1"]},
        "closure_bytes": 2**20,
    } | more


def test_only_differences_are_told() -> None:
    states = {
        Stage.OLD: _state(),
        Stage.NEW: _state(
            toplevel="b",
            units={"sshd.service": "active", "nginx.service": "active"},
            ports=["tcp/443"],
        ),
        Stage.BACK: _state(),
    }
    findings = {
        stage: [
            _finding(f"web@{stage}", "SAME-001", Outcome.PASSED),
            _finding(
                f"web@{stage}", "FW-001", Outcome.FAILED if stage is Stage.NEW else Outcome.PASSED
            ),
        ]
        for stage in states
    }
    difference = compare_stages(states, findings)
    assert difference["findings"] == {"FW-001": ["passed", "failed", "passed"]}
    assert difference["units"] == {"nginx.service": [None, "active", None]}
    assert difference["ports"] == {
        "tcp/22": ["open", None, "open"],
        "tcp/443": [None, "open", None],
    }
    assert difference["packages"] == {}
    assert difference["restored"] == []
    text = "\n".join(upgrade_lines("web", difference))
    assert "nginx.service: - -> active -> -" in text
    assert "after the rollback: as before" in text


def test_what_a_rollback_did_not_restore_is_named() -> None:
    states = {
        Stage.OLD: _state(),
        Stage.NEW: _state(),
        Stage.BACK: _state(units={"sshd.service": "failed"}),
    }
    difference = compare_stages(states, {})
    assert difference["restored"] == ["units"]
    assert "not as before: units" in "\n".join(upgrade_lines("web", difference))


def test_stages_that_were_not_reached_are_left_out() -> None:
    difference = compare_stages({Stage.OLD: _state()}, {})
    assert (difference["stages"], difference["restored"]) == (["old"], None)
