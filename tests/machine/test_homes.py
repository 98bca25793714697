"""Homes that stand by themselves (``homeConfigurations``), in a container on a plain machine.

``homeManagerConfiguration`` is a model of home-manager's own, made after its ``modules/default.nix``: what
it returns, and of its options the three that stand in ``HOMES``. What it builds is in ``generation.nix`` of
test_home_manager.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_nixos.cli.default_flake import default_flakes
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import HostSelection
from pytest_nixos.nix.homes import host_named
from tests.machine.test_example_flake import OVERRIDES, failing, judge, outcomes
from tests.machine.test_home_manager import GENERATION
from tests.support.nixpkgs_tree import NIXPKGS, PROGRAM

HOME_MANAGER = os.environ.get("PYTEST_NIXOS_HOME_MANAGER", "")
stand_in = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")
in_container = pytest.mark.skipif(os.geteuid() != 0, reason="containers need root")

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }:
    let
      home = import ./home-manager.nix { pkgs = nixpkgs.legacyPackages.x86_64-linux; };
      of = more: home {
        home = { username = "alice"; homeDirectory = "/home/alice"; stateVersion = "25.11"; };
        home.file.".gitconfig".text = "[user]\\n  name = Alice\\n";
      } more;
      service = exec: "[Service]\\nExecStart=/run/current-system/sw/bin/${exec}\\n[Install]\\nWantedBy=default.target\\n";
    in
    {
      homeConfigurations."alice@laptop" = of { systemd.user.services.greeter = service "sleep infinity"; };
      homeConfigurations.bad = of { home.homeDirectory = "/srv/alice"; systemd.user.services.broken = service "false"; home.activation = "ln -s /nix/store/gone-unit $HOME/.config/systemd/user/gone.service; exit 3"; };
    };
}
"""
MODEL = """
{ pkgs }: first: second:
let
  inherit (pkgs) lib;
  config = lib.recursiveUpdate first second;
  activationPackage = import ./generation.nix { inherit lib pkgs; } config;
in
{
  inherit activationPackage pkgs;
  config = lib.recursiveUpdate config { home = { inherit activationPackage; }; };
  options = { };
}
"""
OWN_TESTS = """
def test_the_host_is_the_users(host, nixos_machine):
    assert host.user().name == "alice"
    assert host.file("/home/alice/.gitconfig").is_symlink
    assert nixos_machine.run("id -u").stdout_text.strip() == "0"


def test_their_services_run(nixos_host_as):
    assert nixos_host_as("alice").run("systemctl --user is-active greeter").rc == 0
"""


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    folder = tmp_path / "flake"
    folder.mkdir()
    for file, text in (
        ("flake.nix", FLAKE),
        ("home-manager.nix", MODEL),
        ("generation.nix", GENERATION),
    ):
        (folder / file).write_text(text)
    return folder


CONTAINER = ("--nixos-backend", "container", "--nixos-profile", "declared")


@stand_in
@in_container
def test_a_home_is_judged_on_a_plain_machine(tmp_path: Path, flake: Path) -> None:
    own = tmp_path / "test_own.py"
    own.write_text(OWN_TESTS)
    suites = ("--nixos-suite", "home", "--nixos-suite", "units")
    _, report, printed = judge("alice@laptop", tmp_path, *CONTAINER, *suites, str(own), flake=flake)
    assert outcomes(report) == {"HOME-001": "passed", "UNIT-009": "passed"}
    assert "4 passed" in printed, printed


@stand_in
@in_container
def test_what_is_wrong_with_a_home_is_told(tmp_path: Path, flake: Path) -> None:
    suites = ("--nixos-suite", "home", "--nixos-suite", "units")
    name = "homeConfigurations.bad"
    _, report, _ = judge(name, tmp_path, *CONTAINER, *suites, flake=flake)
    assert failing(report) == {"HOME-001", "UNIT-009"}
    said = json.dumps(report["findings"])
    assert "home-manager-alice.service has failed: exit-code" in said
    assert "/srv/alice/.config/systemd/user/gone.service leads to a store path that is gone" in said
    assert "broken.service of alice has failed" in said


@stand_in
def test_only_what_is_about_the_home_or_its_flake_is_judged(tmp_path: Path, flake: Path) -> None:
    done = _pytest(flake, tmp_path, "--nixos-flake", f"{flake}#alice@laptop", "--collect-only")
    items = [line for line in done.stdout.splitlines() if "::" in line]
    suites = {item.split("checks/")[1].partition("/")[0] for item in items}
    assert suites == {"catalogue", "home", "units"}
    assert all("FLK-" in item for item in items if "catalogue" in item)


@stand_in
def test_homes_are_listed_and_all_of_them_judged_where_there_is_no_host(
    tmp_path: Path, flake: Path
) -> None:
    overrides = [
        word for name, ref in OVERRIDES.items() for word in ("--override-input", name, ref)
    ]
    command = [sys.executable, "-m", "pytest_nixos", "hosts", str(flake), *overrides]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert listed.stdout.splitlines() == [
        "homeConfigurations.alice@laptop",
        "homeConfigurations.bad",
    ]
    done = _pytest(flake, tmp_path, "--nixos-flake", str(flake), "--collect-only", "-k", "HOME-001")
    assert done.stdout.count("test_every_home_is_activated_as_the_system_says[") == 2, done.stdout


def test_a_flake_without_hosts_and_homes_says_so(tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text("{ outputs = _: { }; }")
    done = _pytest(tmp_path, tmp_path, "--nixos-flake", str(tmp_path), overrides=False)
    assert done.returncode == 4
    assert "this flake has neither nixosConfigurations nor homeConfigurations" in done.stderr


def _pytest(
    flake: Path, cwd: Path, *words: str, overrides: bool = True
) -> subprocess.CompletedProcess[str]:
    given = OVERRIDES if overrides else {}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words),
            *(w for name, ref in given.items() for w in ("--nixos-override-input", name, ref)),
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


REAL = """
{
  inputs.nixpkgs.url = "path:@NIXPKGS@";
  inputs.home-manager = { url = "path:@HOME_MANAGER@"; inputs.nixpkgs.follows = "nixpkgs"; };
  outputs = { self, nixpkgs, home-manager }: {
    homeConfigurations."alice@laptop" = home-manager.lib.homeManagerConfiguration {
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
      modules = [ {
        home = { username = "alice"; homeDirectory = "/home/alice"; stateVersion = "24.05"; };
        programs.git.enable = true;
        dconf.settings."org/gnome/desktop".x = 1;
      } ];
    };
  };
}
"""


@pytest.mark.skipif(
    not (HOME_MANAGER and NIXPKGS),
    reason="PYTEST_NIXOS_HOME_MANAGER and PYTEST_NIXOS_NIXPKGS name no trees",
)
def test_home_managers_own_modules_make_a_host(tmp_path: Path) -> None:
    text = REAL.replace("@NIXPKGS@", str(Path(NIXPKGS).resolve()))
    (tmp_path / "flake.nix").write_text(text.replace("@HOME_MANAGER@", HOME_MANAGER))
    settings = NixSettings(program=PROGRAM)
    flakes = default_flakes(settings)
    ref = host_named(flakes, HostSelection.parse(f"{tmp_path}#alice@laptop", cwd=tmp_path))
    home = flakes.of(ref.flake).evaluate(ref.attr, option_paths=["programs.dconf.enable"])
    assert home.home_user == "alice"
    assert home.users["alice"].home == "/home/alice"
    assert "home-manager-alice.service" in home.units
    assert home.option("programs.dconf.enable").value is True
    assert home.unreadable == ()
