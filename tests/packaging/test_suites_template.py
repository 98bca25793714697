"""``nix flake init -t …#suites`` as strangers use it: as a wheel beside ours, and as the input of a
flake with hosts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.machine.test_example_flake import OVERRIDES
from tests.support.wheel import ROOT, build_wheels

NIX = ("nix", "--extra-experimental-features", "nix-command flakes")

needs_nix = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as Nix writes it into an empty directory, or a copy where there is no Nix."""
    directory = tmp_path_factory.mktemp("acme")
    if not OVERRIDES:
        shutil.copytree(ROOT / "nix/suites", directory, dirs_exist_ok=True)
        return directory
    subprocess.run(
        [*NIX, "flake", "init", "-t", f"git+file://{ROOT}#suites"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


@pytest.fixture(scope="module")
def environment(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with two wheels, this plugin's and the template's; its dependencies are this one's."""
    wheels = tmp_path_factory.mktemp("wheels")
    copy = tmp_path_factory.mktemp("source") / "acme"
    shutil.copytree(template, copy)
    build_wheels(wheels, ROOT, copy)
    directory = tmp_path_factory.mktemp("stranger")
    venv.create(directory, with_pip=False, symlinks=True)
    (site,) = (directory / "lib").glob("python*/site-packages")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    ours = [p for p in sys.path if p.endswith("site-packages")]
    (site / "dependencies.pth").write_text(
        "\n".join(f"import sys; sys.path.append({p!r})" for p in ours)
    )
    program = directory / "bin/pytest"
    program.write_text(f'#!/bin/sh\nexec {directory}/bin/python -m pytest "$@"\n')
    program.chmod(0o755)
    return directory


def test_the_wheel_brings_suite_control_and_profile(environment: Path, tmp_path: Path) -> None:
    listed = subprocess.run(
        [
            *(environment / "bin/python", "-m", "pytest_nixos", "controls", "--profile", "acme"),
            *(
                "--catalogue",
                next(environment.glob("lib/python*/site-packages/acme_nixos/catalogue")),
            ),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"ACME-001 +HIGH", listed.stdout)
    assert "FW-003" in listed.stdout


@needs_nix
def test_as_the_input_of_a_flake_with_hosts(
    template: Path, environment: Path, tmp_path: Path
) -> None:
    (tmp_path / "flake.nix").write_text(
        f"""
        {{
          inputs.nixpkgs.url = "nixpkgs";
          inputs.pytest-nixos = {{ url = "git+file://{ROOT}"; inputs.nixpkgs.follows = "nixpkgs"; }};
          inputs.acme = {{
            url = "path:{template}";
            inputs.nixpkgs.follows = "nixpkgs";
            inputs.pytest-nixos.follows = "pytest-nixos";
          }};
          inputs.example = {{ url = "git+file://{ROOT}?dir=example-flake"; inputs.nixpkgs.follows = "nixpkgs"; }};
          outputs = {{ acme, example, pytest-nixos, ... }}:
            let
              # The stand-in builds no Python packages: the wheels stand for them.
              rules = pytest-nixos.lib.using (system: "{environment}");
              judge = module: rules.checkHostReport {{
                host = example.nixosConfigurations.llm-host.extendModules {{ modules = [ module ]; }};
                profiles = [ "acme" ];
                suites = [ "naming" ];
                arguments = [ "-k" "test_the_name_says" ];
                rollback = false;
                requiredSystemFeatures = [ ];
              }};
            in
            {{
              functions = builtins.attrNames acme.lib;
              well = judge {{ }};
              ill = judge ({{ lib, ... }}: {{ networking.hostName = lib.mkForce "LLM"; }});
            }};
        }}
        """
    )
    words = [word for name, ref in OVERRIDES.items() for word in ("--override-input", name, ref)]

    def nix(*arguments: str) -> str:
        done = subprocess.run(
            [*NIX, *arguments, *words, "--no-write-lock-file"],
            cwd=tmp_path,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert {"checkHost", "checkFlake", "judge"} <= set(
        json.loads(nix("eval", "--json", ".#functions"))
    )
    outcomes = {}
    for name in ("well", "ill"):
        nix("build", f".#{name}", "--out-link", str(tmp_path / name))
        findings = json.loads((tmp_path / name / "report.json").read_text())["findings"]
        outcomes[name] = {f["control"]: f["outcome"] for f in findings}
    assert outcomes == {"well": {"ACME-002": "passed"}, "ill": {"ACME-002": "failed"}}
