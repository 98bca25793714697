"""Hosts with secrets boot without their key, and are judged right: eight layouts on models of
sops-nix and agenix, whose age is the real one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.machine.test_example_flake import OVERRIDES, failing, judge, outcomes, passed
from tests.support.secret_flake import AGE, LAYOUTS, write_secret_flake

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not AGE, reason="needs age: apt-get install age"),
]

JUDGED = ("--nixos-profile", "declared", "--nixos-profile", "life")
CONTROLS = "BOOT-001 or UNIT-009 or SEC-0"
MADE = {"SEC-012", "SEC-013", "SEC-014", "SEC-015"}


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_secret_flake(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def of(report: Any, control: str) -> Any:
    return next(f for f in report["findings"] if f["control"] == control)


@pytest.mark.parametrize("host", LAYOUTS)
def test_layout_boots_with_test_secrets(host: str, flake: Path, tmp_path: Path) -> None:
    status, report, printed = judge(host, tmp_path, *JUDGED, "-k", CONTROLS, flake=flake)
    assert failing(report) == set(), printed
    assert status == 0
    assert passed(report) >= {"BOOT-001", *MADE}
    assert outcomes(report)["SEC-011"] == "not-applicable", printed
    told = [line for line in printed.splitlines() if "test value" in line]
    assert len(told) == 1, printed
    assert "test value" in report["run"]["hosts"][host]["circumstances"]["secrets"]


def test_nothing_of_the_owners_and_no_value_is_told(flake: Path, tmp_path: Path) -> None:
    _, _, printed = judge("leaky", tmp_path, *JUDGED, "-k", CONTROLS, flake=flake)
    (kept,) = (tmp_path / "cache/pytest-nixos/test-secrets").glob("*.json")
    values = set(kept.read_text().split('"')) & {word for word in printed.split('"') if word}
    assert not any(len(value) > 11 and value.isalnum() for value in values), values
    assert "AGE-SECRET-KEY" not in printed + (tmp_path / "report.json").read_text()


def test_what_loosens_and_shows_a_secret_is_found(flake: Path, tmp_path: Path) -> None:
    _, report, printed = judge("leaky", tmp_path, *JUDGED, "-k", CONTROLS, flake=flake)
    assert failing(report) == {"SEC-012", "SEC-013", "SEC-014", "SEC-015"}, printed
    assert "api-token and early.service: decrypted" in of(report, "SEC-012")["reason"]
    assert "stubborn.service was not restarted" in of(report, "SEC-015")["reason"]
    assert "mode is 0444, declared is 0400" in of(report, "SEC-013")["reason"]
    assert "owner is root, declared is app" in of(report, "SEC-013")["reason"]
    seen = of(report, "SEC-014")["reason"]
    assert "command line of a process of shout.service" in seen
    assert "environment of a process of heir.service" in seen and "environment of systemd" in seen


def test_missing_files_are_one_finding_that_explains_its_units(flake: Path, tmp_path: Path) -> None:
    _, report, printed = judge("plain-files", tmp_path, *JUDGED, "-k", CONTROLS, flake=flake)
    cause = of(report, "SEC-011")
    assert cause["outcome"] == "failed" and not cause["caused_by"], printed
    assert set(cause["explains"]) >= {"BOOT-001"}
    assert of(report, "BOOT-001")["caused_by"] == ["SEC-011"]
    for path in ("app.env", "token", "alice"):
        assert f"/etc/nixos/secrets/{path} is not there" in cause["reason"]
    options = [w for w in cause["remedy"].split() if w.startswith("/etc/nixos")]
    again = tmp_path / "again"
    again.mkdir()
    # Nobody knows which variables a file has that is not in the repository.
    (again / "app.env").write_text("API_KEY=mine\n")
    options = [o.replace("app.env=kind:environment", "app.env=app.env") for o in options]
    given = [word for option in options for word in ("--nixos-secret", option)]
    _, report, printed = judge("plain-files", again, *JUDGED, "-k", CONTROLS, *given, flake=flake)
    assert failing(report) == set(), printed
    assert {"BOOT-001", "SEC-011"} <= passed(report)
    assert "plain-files: 3 plain files given" in printed


def test_what_only_the_hosts_own_key_opens_is_told(flake: Path, tmp_path: Path) -> None:
    _, report, printed = judge("credentials", tmp_path, *JUDGED, "-k", CONTROLS, flake=flake)
    assert failing(report) - set(of(report, "SEC-011")["explains"]) == {"SEC-011"}, printed
    assert "SetCredentialEncrypted=key" in of(report, "SEC-011")["reason"]
    assert "app.service" not in of(report, "SEC-011")["reason"]


def test_bad_input_is_told_before_anything_boots(flake: Path, tmp_path: Path) -> None:
    secrets = flake / "secrets/all.yaml"
    encrypted = secrets.read_text()
    try:
        secrets.write_text("api-token: readable\nnested: {deep: readable}\n")
        _, report, printed = judge("sops-yaml", tmp_path, *JUDGED, "-k", "BOOT-001", flake=flake)
    finally:
        secrets.write_text(encrypted)
    why = report["run"]["hosts"]["sops-yaml"]["failure"]
    assert "no file of sops" in why and "secrets/all.yaml" in why, printed
    assert "sops --encrypt" in why and "/nix/store" not in why
    assert "stage 2" not in printed


def test_the_user_gives_values_by_hook_and_real_secrets_by_their_key(
    flake: Path, tmp_path: Path
) -> None:
    assert AGE is not None
    test = tmp_path / "test_mine.py"
    (tmp_path / "conftest.py").write_text(
        "def pytest_nixos_test_secrets(host):\n    return {'token': 'of my own'}\n"
    )
    test.write_text(
        "def test_value(host):\n    assert host.file('/run/agenix/token').content == b'of my own'\n"
    )
    status, _, printed = judge("agenix", tmp_path, str(test), flake=flake)
    assert status == 0, printed

    key = subprocess.run(
        [AGE.replace("/age", "/age-keygen")], capture_output=True, text=True, check=True
    ).stdout
    (tmp_path / "key.txt").write_text(key)
    recipient = key.split("public key: ")[1].split()[0]
    for name in ("token", "alice"):
        subprocess.run(
            [AGE, "-r", recipient, "-o", str(flake / f"secrets/{name}.age")],
            input=b"the real one",
            check=True,
        )
    (tmp_path / "conftest.py").unlink()
    test.write_text(
        "def test_value(host):\n    assert host.file('/run/agenix/token').content == b'the real one'\n"
    )
    real = ("--nixos-real-secrets-key", str(tmp_path / "key.txt"))
    status, _, printed = judge("agenix", tmp_path, str(test), *real, flake=flake)
    assert status == 0, printed
    assert "the values are real" in printed
