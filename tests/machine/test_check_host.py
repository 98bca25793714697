"""``lib.checkHost`` of this project's flake: evaluated with the offline nixpkgs, built, and its
prepared host judged without Nix.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.machine.test_example_flake import OVERRIDES

ROOT = Path(__file__).parents[2]
PREFIX = Path(sys.prefix)  # has bin/pytest with this plugin

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")

FLAKE = f"""
{{
  inputs.nixpkgs.url = "nixpkgs";
  inputs.example = {{ url = "git+file://{ROOT}?dir=example-flake"; inputs.nixpkgs.follows = "nixpkgs"; }};
  inputs.pytest-nixos = {{ url = "git+file://{ROOT}"; inputs.nixpkgs.follows = "nixpkgs"; }};
  outputs = {{ self, nixpkgs, example, pytest-nixos }}:
    let
      judge = arguments: pytest-nixos.lib.checkHost ({{
        flake = example;
        pytest-nixos = "{PREFIX}";
        requiredSystemFeatures = [ ];
      }} // arguments);
      hosts = example.nixosConfigurations;
      all = arguments: pytest-nixos.lib.checkFlake example ({{ pytest-nixos = "{PREFIX}"; }} // arguments);
    in
    {{
      container = judge {{ host = hosts.container-host; flake = null; }};
      # The stand-in's programs run in guests; those that start a container are this machine's.
      contained = pytest-nixos.lib.checkHostReport {{
        host = hosts.container-host;
        pytest-nixos = "{PREFIX}";
        requiredSystemFeatures = [ ];
        pkgs = nixpkgs.legacyPackages.x86_64-linux
          // nixpkgs.lib.genAttrs [ "systemd" "util-linux" "iproute2" "e2fsprogs" "nix" ] (_: "@PROGRAMS@");
        life = true;
        profiles = [ "life" ];
        suites = [ "life" ];
      }};
      wrong = nixpkgs.lib.mapAttrs (_: more: judge ({{ host = hosts.llm-host; }} // more)) {{
        tests = {{ tests = [ "/home/me/test_web.py" ]; }};
        list = {{ profiles = "hardened"; }};
        severity = {{ failOn = "medum"; }};
        waivers = {{ waivers = "waivers.toml"; }};
        word = {{ profile = "hardened"; }};
        backend = {{ backend = "ssh"; }};
        host = {{ host = "llm-host"; name = "llm-host"; pkgs = nixpkgs.legacyPackages.x86_64-linux; }};
      }};
      # Of the config alone: no machine is started.
      own = expected: judge {{
        host = hosts.llm-host;
        suites = [ "none" ];
        tests = [ (builtins.toFile "test_own.py" "def test_own(nixos_host_config): assert nixos_host_config.host_name == '${{expected}}'") ];
      }};
      good = self.own "llm-host";
      bad = self.own "other";
      report = pytest-nixos.lib.checkHostReport {{
        host = hosts.llm-host-bad;
        pytest-nixos = "{PREFIX}";
        requiredSystemFeatures = [ ];
        suites = [ "zram" ];
      }};
      # Of its own word alone: nothing is judged but that.
      speaking = judge {{
        host = hosts.llm-host.extendModules {{
          modules = [
            pytest-nixos.nixosModules.default
            {{
              pytest-nixos.profiles = [ "hardened" ];
              pytest-nixos.waivers = [
                {{ control = "FLK-009"; reason = "r"; owner = "o"; expires = "2099-01-01"; }}
              ];
            }}
          ];
        }};
        suites = [ "none" ];
      }};
      no-host = judge {{ host = {{ }}; name = "nothing"; }};
      two = all {{ hosts = [ "llm-host" "firewall-iptables" ]; }};
      unknown = all {{ hosts = [ "llm-hots" ]; }};
    }};
}}
"""


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("flake")
    programs = tmp_path_factory.mktemp("programs")
    (programs / "bin").mkdir()
    for name in ("systemd-nspawn", "unshare", "nsenter", "ip", "nix-store", "mkfs.ext4", "mount"):
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if found:
            (programs / "bin" / name).symlink_to(found)
    (directory / "flake.nix").write_text(FLAKE.replace("@PROGRAMS@", str(programs)))
    return directory


def nix(flake: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    overrides = [w for name, ref in OVERRIDES.items() for w in ("--override-input", name, ref)]
    return subprocess.run(
        [
            "nix",
            *("--extra-experimental-features", "nix-command flakes"),
            *arguments,
            *overrides,
            "--no-write-lock-file",
        ],
        cwd=flake,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def said(flake: Path, attribute: str) -> str:
    done = nix(flake, "eval", "--raw", f".#{attribute}")
    assert done.returncode != 0, done.stdout
    return done.stderr


def outcomes(report: Path) -> dict[str, set[str]]:
    findings: list[Any] = json.loads(report.read_text())["findings"]
    found: dict[str, set[str]] = {}
    for finding in findings:
        found.setdefault(finding["outcome"], set()).add(finding["control"])
    return found


def judged(prepared: Path, tmp_path: Path, arguments: Sequence[str] = ()) -> Path:
    """Judge a prepared host with a ``nix`` that refuses to work."""
    refusing = tmp_path / "bin"
    refusing.mkdir()
    (refusing / "nix").write_text("#!/bin/sh\necho called >> $0.calls\nexit 99\n")
    (refusing / "nix").chmod(0o755)
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)),
            *("--nixos-prepared", str(prepared), "--nixos-report", f"json:{report}", *arguments),
        ],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{refusing}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert not (refusing / "nix.calls").exists()
    return report


@pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")
def test_a_prepared_host_is_judged_without_nix(flake: Path, tmp_path: Path) -> None:
    built = nix(flake, "build", ".#container.prepared", "--out-link", str(tmp_path / "prepared"))
    assert built.returncode == 0, built.stderr
    report = judged(tmp_path / "prepared", tmp_path)
    found = outcomes(report)
    assert {"passed", "not-applicable"} == set(found)
    assert {"FW-003", "BOOT-001", "SYS-001", "SEC-001"} <= found["passed"]
    # The changed generation of the suite rollback is an input.
    assert {"RBK-001", "RBK-002", "RBK-003", "RBK-004", "RBK-005"} <= found["passed"]


# As root without its sandbox, a builder is what `uid-range` makes of it.
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")


@needs_root
def test_a_builder_that_can_make_no_wrappers_says_so(flake: Path) -> None:
    done = nix(
        flake, "build", "-L", ".#contained", "--no-link", "--option", "filter-syscalls", "true"
    )
    assert done.returncode != 0
    assert "container-host was not judged: a container needs a builder that" in done.stderr


@needs_root
@pytest.mark.skipif(
    "PYTEST_NIXOS_NIXOS_TESTS" not in os.environ, reason="PYTEST_NIXOS_NIXOS_TESTS=1"
)
def test_a_build_judges_a_container_and_its_life(flake: Path, tmp_path: Path) -> None:
    result = tmp_path / "result"
    done = nix(
        flake,
        *("build", "-L", ".#contained", "--out-link", str(result)),
        *("--option", "filter-syscalls", "false"),
    )
    assert done.returncode == 0, done.stderr
    found = outcomes(result / "report.json")
    assert not found.get("failed") and not found.get("error"), found
    assert {"RBK-006", "RBK-007", "RBK-018"} <= found["passed"]


def test_a_build_judges_a_host(flake: Path, tmp_path: Path) -> None:
    done = nix(flake, "build", "-L", ".#report", "--out-link", str(tmp_path / "result"))
    assert done.returncode == 0, done.stderr
    result = tmp_path / "result"
    assert (result / "exit-status").read_text() == "1\n"
    assert outcomes(result / "report.json")["failed"]
    products = (result / "nix-support" / "hydra-build-products").read_text().splitlines()
    for kind, _, *where in map(str.split, products):
        assert kind in ("report", "file")
        assert Path(*where).exists()


def test_a_failed_check_fails_the_build(flake: Path) -> None:
    assert nix(flake, "build", ".#good", "--no-link").returncode == 0
    done = nix(flake, "build", "-L", ".#bad", "--no-link")
    assert done.returncode != 0
    assert "1 failed" in done.stderr


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        (
            "wrong.tests.drvPath",
            "llm-host: tests: /home/me/test_web.py is a text, and a build sees no",
        ),
        (
            "wrong.list.drvPath",
            "llm-host: profiles: expected a list, got string: profiles = [ ... ];",
        ),
        ("wrong.severity.drvPath", "failOn: medum; known: style, low, medium, high, critical"),
        ("wrong.waivers.drvPath", "waivers: waivers.toml is a text, and a build sees no file"),
        ("wrong.word.drvPath", "called with unexpected argument 'profile'"),
        ("wrong.backend.drvPath", "it would run as ssh, which no build can"),
        ("wrong.host.drvPath", "checkHost: llm-host: it has no config"),
        ("no-host.drvPath", "checkHost: nothing: it has no config"),
        ("unknown.x86_64-linux", "no host llm-hots; known: "),
    ],
)
def test_what_cannot_be_judged_is_told_when_it_is_evaluated(
    flake: Path, attribute: str, words: str
) -> None:
    assert words in said(flake, attribute)


def test_hosts_of_a_flake_become_checks(flake: Path) -> None:
    done = nix(
        flake, "eval", "--json", ".#two", "--apply", "builtins.mapAttrs (_: builtins.attrNames)"
    )
    assert json.loads(done.stdout) == {"x86_64-linux": ["firewall-iptables", "llm-host"]}


def test_what_a_host_says_itself_reaches_the_build(flake: Path) -> None:
    done = nix(flake, "eval", "--raw", ".#speaking.buildCommand")
    assert done.returncode == 0, done.stderr
    assert "--nixos-profile hardened" in done.stdout
    said = nix(flake, "eval", "--json", ".#speaking.document.options")
    assert [{"control": "FLK-009", "reason": "r", "owner": "o", "expires": "2099-01-01"}] in [
        option["value"]["waivers"]
        for option in json.loads(said.stdout)
        if isinstance(option.get("value"), dict) and "waivers" in option["value"]
    ]
