"""The main job on the example flake, for real: good hosts have no failing finding, the bad twin
exactly those it names.

``PYTEST_NIXOS_TEST_OVERRIDES`` is what ``example-flake/offline-nixpkgs/prepare --json`` prints;
``./dev test`` sets it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.standards.load import load_catalogue
from pytest_nixos.standards.profile import load_profiles, select_controls
from tests.machine.twins import CATALOGUE, GOOD_TODAY_ONLY, KERNEL, STALE, Broken

EXAMPLE = Path(__file__).parents[2] / "example-flake"
OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))
LIMIT_S = 1200

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")


def judge(
    host: str, tmp_path: Path, *arguments: str, flake: Path = EXAMPLE
) -> tuple[int, Any, str]:
    """Run the bundled suites on `host`; return exit status, report, and what was printed."""
    overrides = [
        word for name, ref in OVERRIDES.items() for word in ("--nixos-override-input", name, ref)
    ]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--nixos-flake",
            f"{flake}#{host}",
            *overrides,
            *("-o", f"nixos_catalogue={EXAMPLE / 'standards'}"),
            "--nixos-report",
            f"json:{report}",
            *arguments,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert report.exists(), printed
    return done.returncode, json.loads(report.read_text()), printed


def failing(report: Any) -> set[str]:
    return {f["control"] for f in report["findings"] if f["outcome"] in ("failed", "error")}


def passed(report: Any) -> set[str]:
    return {f["control"] for f in report["findings"] if f["outcome"] == "passed"}


def outcomes(report: Any) -> dict[str, str]:
    return {f["control"]: f["outcome"] for f in report["findings"]}


def assert_evidence(report: Any, broken: Broken) -> None:
    """Each control is reported with its severity, and with evidence that names what is wrong."""
    found = {f["control"]: f for f in report["findings"] if f["outcome"] == "failed"}
    for control, (severity, evidence) in broken.items():
        finding = found[control]
        assert finding["severity"] == severity, control
        assert evidence in finding["reason"], f"{control}: {finding['reason']}"
        assert finding["expected"] and finding["observed"] is not None, control
        assert finding["remedy"] and finding["threat"], control


def promised(host: str, profile: str) -> set[str]:
    """Read which controls of a profile a host says that it breaks: ``# breaks: ID``."""
    catalogue = load_catalogue()
    profiles = load_profiles(catalogue, [EXAMPLE / "standards"])
    selected = {c.id for c in select_controls([profile], profiles, catalogue)}
    text = (EXAMPLE / "hosts" / f"{host}.nix").read_text()
    return {
        control
        for line in re.findall(r"# breaks: ([^\n]*)", text)
        for control in re.findall(r"\b[A-Z]+-D?\d+\b", line)
        if control in selected
    }


@pytest.mark.parametrize("host", ["llm-host", "firewall-iptables"])
def test_good_host_has_no_failing_finding(host: str, tmp_path: Path) -> None:
    status, report, printed = judge(host, tmp_path, "--nixos-profile", "kernel-twins")
    assert failing(report) == set(), printed
    assert status == 0
    assert set(KERNEL) <= passed(report)
    suites = {control.partition("-")[0] for control in passed(report)}
    assert {"BOOT", "FW", "SYS", "ZRAM", "SBX", "OLL", "RBK"} <= suites
    assert report["run"]["hosts"][host]["backend"] == "vm"


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_good_container_has_no_failing_finding(tmp_path: Path) -> None:
    record = ("--nixos-record", str(tmp_path / "kept"))
    status, report, printed = judge("container-host", tmp_path, *record)
    assert failing(report) == set(), printed
    assert status == 0
    assert report["run"]["hosts"]["container-host"]["backend"] == "container"
    assert {"BOOT-001", "FW-003", "FW-004", "RBK-002"} <= passed(report)
    replayed = replay(tmp_path / "kept", tmp_path)
    assert said(replayed) == said(report)
    assert len(report["findings"]) > 100


def replay(recording: Path, tmp_path: Path, *arguments: str) -> Any:
    """Judge a recording again, on a machine that has no Nix; return the report."""
    report = tmp_path / "replayed.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *(f"--nixos-replay={recording}", "--nixos-report", f"json:{report}"),
            *("-o", f"nixos_catalogue={EXAMPLE / 'standards'}", *arguments),
        ],
        cwd=tmp_path,
        env={**os.environ, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    return json.loads(report.read_text())


def said(report: Any) -> dict[str, Any]:
    """Return the findings by item, without what only the machine's own time could tell."""
    own_time = {"duration_s", "pressure"}
    found = {}
    for finding in report["findings"]:
        finding["attachments"].pop("replayed", None)
        found[finding["node_id"]] = {k: v for k, v in finding.items() if k not in own_time}
    return found


def test_bad_twin_breaks_exactly_what_it_names(tmp_path: Path) -> None:
    expected = promised("llm-host-bad", "kernel-twins")
    assert len(expected) >= 20
    status, report, printed = judge("llm-host-bad", tmp_path, "--nixos-profile", "kernel-twins")
    assert failing(report) == expected, printed
    assert_evidence(report, KERNEL)
    assert status == pytest.ExitCode.TESTS_FAILED
    for finding in report["findings"]:
        if finding["outcome"] == "failed":
            assert finding["reason"] and finding["remedy"] and finding["threat"]


# Of the catalogue alone: what the other suites find is the business of the tests above.
CATALOGUE_ONLY = ("-k", "test_control")


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_each_kind_of_control_is_broken_and_kept(tmp_path: Path) -> None:
    arguments = ("--nixos-profile", "twins", *CATALOGUE_ONLY)
    status, bad, printed = judge("catalogue-bad", tmp_path, *arguments)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert outcomes(bad) == dict.fromkeys(CATALOGUE, "failed"), printed
    assert_evidence(bad, CATALOGUE)
    status, good, printed = judge("catalogue-good", tmp_path, *arguments)
    assert outcomes(good) == dict.fromkeys(CATALOGUE, "passed"), printed
    assert status == 0


def test_each_kind_of_control_of_a_flake_is_broken_and_kept(tmp_path: Path) -> None:
    arguments = ("--nixos-profile", "stale", "--nixos-fail-on", "style", *CATALOGUE_ONLY)
    status, bad, printed = judge("stale", tmp_path, *arguments, flake=EXAMPLE / "stale")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert outcomes(bad) == dict.fromkeys(STALE, "failed"), printed
    assert_evidence(bad, STALE)
    _, good, printed = judge("catalogue-good", tmp_path, *arguments)
    assert set(STALE) - GOOD_TODAY_ONLY <= passed(good), printed


def test_name_with_dots_and_dashes(tmp_path: Path) -> None:
    status, report, printed = judge("edge.lab-1", tmp_path, "-k", "boot")
    assert status == 0, printed
    assert set(report["run"]["hosts"]) == {"edge.lab-1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_two_sessions_side_by_side(tmp_path: Path) -> None:
    overrides = [
        word for name, ref in OVERRIDES.items() for word in ("--nixos-override-input", name, ref)
    ]
    sessions = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                *overrides,
                "--nixos-flake",
                f"{EXAMPLE}#container-host",
                "--nixos-suite",
                "firewall",
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    printed = [session.communicate(timeout=LIMIT_S)[0] for session in sessions]
    assert [session.returncode for session in sessions] == [0, 0], "\n".join(printed)


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_upgrade_of_a_container(tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(EXAMPLE, old, ignore=shutil.ignore_patterns("offline-nixpkgs", "result*"))
    host = old / "hosts" / "container-host.nix"
    host.write_text(host.read_text().replace("../modules/notes.nix", ""))
    status, report, printed = judge(
        "container-host",
        tmp_path,
        *("--nixos-upgrade-from", f"path:{old}"),
        *("--nixos-suite", "boot", "--nixos-suite", "rollback"),
    )
    assert status == 0, printed
    difference = report["run"]["upgrades"]["container-host"]
    assert difference["stages"] == ["old", "new", "back"]
    assert difference["units"] == {"notes.service": [None, "active", None]}
    assert difference["restored"] == []
    assert "notes.service: - -> active -> -" in printed


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_life_of_a_container(tmp_path: Path) -> None:
    status, report, printed = judge(
        "container-host",
        tmp_path,
        *("--nixos-profile", "life", "--nixos-suite", "life", "--nixos-suite", "generations"),
    )
    assert failing(report) == set(), printed
    assert status == 0
    assert {f"RBK-{number:03}" for number in (*range(6, 15), 17, 18, 19, 21)} <= passed(report)
    assert "GEN-004" in passed(report)
    cells = next(f for f in report["findings"] if f["control"] == "RBK-006")["observed"]
    assert len(cells) == 32
