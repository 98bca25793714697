"""One secret in the source, in a unit and in the closure is one cause."""

from __future__ import annotations

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.report.summary.causes import explained
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.sources.told_secrets import secrets_of

CATALOGUE = load_catalogue()


def finding(control: str, *told: str) -> Finding:
    """Make the finding of a control that told of these."""
    found = CATALOGUE.control(control)
    assert found.observed is not None
    return Finding(
        control=control, title="", suite="", host="it", backend="container",
        severity=found.severity, outcome=Outcome.FAILED, judged_on="config", reason="", threat="",
        remedy="", blames=KINDS[found.observed.kind].blames(found.observed.parameters, list(told)),
    )  # fmt: skip


def causes(*findings: Finding) -> dict[str, tuple[str, ...]]:
    return {f.control: f.caused_by for f in explained(findings)}


def test_names_of_secrets() -> None:
    told = [
        "etc/a.env:3: password at the name DB_PASSWORD (tr0…)",
        "hosts/web.nix:7: GitHub token (ghp_…)",
        "web.service: API_KEY",
        "services.grafana.settings.security.admin_password",
    ]
    assert [s.name for s in secrets_of(told)] == [
        "db_password", "github token (ghp_…)", "api_key", "admin_password",
    ]  # fmt: skip
    assert secrets_of(None) == () and secrets_of({"a": 1}) == ()


def test_one_secret_is_told_once() -> None:
    in_closure = finding("SEC-001", "web.service:9: secret at the name API_KEY (corr…)")
    in_unit = finding("SEC-004", "web.service: API_KEY")
    in_source = finding("SEC-016", "hosts/web.nix:3: secret at the name API_KEY (corr…)")
    assert in_closure.severity is Severity.CRITICAL
    assert causes(in_unit, in_source, in_closure) == {
        "SEC-001": (),
        "SEC-004": ("SEC-001",),
        "SEC-016": ("SEC-001",),
    }


def test_another_secret_stays_a_cause() -> None:
    in_closure = finding("SEC-001", "web.service:9: secret at the name API_KEY (corr…)")
    in_source = finding(
        "SEC-016",
        "hosts/web.nix:3: secret at the name API_KEY (corr…)",
        "hosts/old.nix:3: GitHub token (ghp_…)",
    )
    assert causes(in_closure, in_source)["SEC-016"] == ()


def test_other_facts_of_the_kinds_blame_nothing() -> None:
    assert finding("FLK-009", "host.nix:4: builtins.getEnv").blames == ()
    assert finding("SEC-010", "users.users.ann.hashedPasswordFile").blames == ()
