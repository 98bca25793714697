"""Upgrades for real, in containers: what a switch leaves undone is found, what it did is not; an
inhibitor is gone round.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.machine.test_example_flake import OVERRIDES, judge

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }:
    let
      host = value: more: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ (import ./host.nix value) { system.preSwitchChecks = more; } ];
      };
      # As NixOS 26.05 does it: what runs and what comes are compared, whichever of them is newer.
      compared = { switchInhibitors = ''
        ours=$(cat /run/current-system/etc/message-bus) theirs=$(cat "$1/etc/message-bus")
        case $2 in
          switch|test) [ "$ours" = "$theirs" ] || { echo "message-bus : $ours -> $theirs" >&2; exit 1; } ;;
        esac
      ''; space = "true"; };
    in {
      nixosConfigurations.old = host "10" { };
      nixosConfigurations.dbus = host "dbus" compared;
      nixosConfigurations.broker = host "broker" compared;
      nixosConfigurations.new = host "99" { };
      nixosConfigurations.refusing = host "99" {
        switchInhibitors = "case $2 in switch|test) echo 'init-interface : old -> new'; exit 7;; esac";
      };
    };
}
"""
# Stale after a switch from 10 to 99 are those whose names begin with "stale".
HOST = """
value: { config, lib, pkgs, ... }:
let
  service = more: lib.mkMerge [ { wantedBy = [ "multi-user.target" ]; script = lib.mkDefault "exec sleep infinity"; } more ];
in
{
  boot.isContainer = true;
  system.stateVersion = "25.11";
  networking.hostName = "it";
  environment.etc = {
    "read-once.conf".text = "limit = ${value}\\n";
    "variables.env".text = "LIMIT=${value}\\n";
    "folder.d/one.conf".text = "limit = ${value}\\n";
    "triggers.conf".text = "limit = ${value}\\n";
    "reloads.conf".text = "limit = ${value}\\n";
    "same.conf".source = pkgs.writeText "same-${value}" "limit = 10\\n";
    "hosts.extra".text = value;
    "message-bus".text = value;
  };
  systemd.services = {
    stale-script = service { script = "cat /etc/read-once.conf; exec sleep infinity"; };
    stale-variables = service { serviceConfig.EnvironmentFile = "/etc/variables.env"; };
    stale-folder = service { script = "ls /etc/folder.d; exec sleep infinity"; };
    stale-stubborn = service { restartIfChanged = false; environment.LIMIT = value; };
    triggered = service {
      script = "cat /etc/triggers.conf; exec sleep infinity";
      restartTriggers = [ config.environment.etc."triggers.conf".source ];
    };
    reloaded = service {
      script = "cat /etc/reloads.conf; exec sleep infinity";
      reload = "cat /etc/reloads.conf";
      reloadTriggers = [ config.environment.etc."reloads.conf".source ];
    };
    same = service { script = "cat /etc/same.conf; exec sleep infinity"; };
    changed = service { environment.LIMIT = value; };
    apart = service { script = "cat /etc/hosts; exec sleep infinity"; };
  };
}
"""


@pytest.fixture
def flake(tmp_path: Path) -> Path:
    folder = tmp_path / "flake"
    folder.mkdir()
    (folder / "flake.nix").write_text(FLAKE)
    (folder / "host.nix").write_text(HOST)
    return folder


def upgrade(flake: Path, host: str, tmp_path: Path, *, old: str = "old") -> tuple[Any, Any, str]:
    """Return the findings by control and host, the comparison of the stages, and what was
    printed.
    """
    _, report, printed = judge(
        host,
        tmp_path,
        *("--nixos-upgrade-from", f"{flake}#{old}", "--nixos-suite", "rollback"),
        flake=flake,
    )
    findings = {(f["control"], f["host"]): f for f in report["findings"]}
    return findings, report["run"]["upgrades"][host], printed


def test_services_that_a_switch_leaves_behind(flake: Path, tmp_path: Path) -> None:
    findings, compared, printed = upgrade(flake, "new", tmp_path)
    finding = findings["UPG-001", "new@new"]
    assert finding["outcome"] == "failed", printed
    stale = finding["observed"]
    assert set(stale) == {
        "stale-script.service",
        "stale-variables.service",
        "stale-folder.service",
        "stale-stubborn.service",
    }
    assert stale["stale-script.service"] == [
        "it names /etc/read-once.conf, which changed, and was neither restarted nor reloaded"
    ]
    assert "a fresh boot gives it other variables: LIMIT" in stale["stale-variables.service"]
    assert "/etc/folder.d/one.conf" in stale["stale-folder.service"][0]
    assert "restartIfChanged = false" in stale["stale-stubborn.service"][0]
    assert findings["UPG-002", "new@new"]["outcome"] == "passed"
    assert findings["UPG-001", "new@old"]["outcome"] == "not-applicable"
    assert compared["restored"] == []
    assert "stale-script.service still runs what the old system gave it" in printed


def test_a_system_that_refuses_a_switch_is_reached_by_boot_and_reboot(
    flake: Path, tmp_path: Path
) -> None:
    findings, compared, printed = upgrade(flake, "refusing", tmp_path)
    wrong = {key: f["reason"] for key, f in findings.items() if f["outcome"] in ("failed", "error")}
    assert wrong == {}, printed
    assert findings["UPG-002", "refusing@new"]["outcome"] == "passed"
    assert "init-interface : old -> new" in compared["way"]["refusal"]
    assert compared["stages"] == ["old", "new", "back"]
    assert compared["toplevels"][0] == compared["toplevels"][2] != compared["toplevels"][1]
    assert "usage, boot loader" not in printed


@pytest.mark.skipif(
    not os.environ.get("PYTEST_NIXOS_UPGRADES"), reason="takes a minute: PYTEST_NIXOS_UPGRADES=1"
)
def test_two_systems_that_refuse_each_other_are_reached_by_boot_there_and_back(
    flake: Path, tmp_path: Path
) -> None:
    findings, compared, printed = upgrade(flake, "broker", tmp_path, old="dbus")
    wrong = {key: f["reason"] for key, f in findings.items() if f["outcome"] in ("failed", "error")}
    assert wrong == {}, printed
    # Nothing is left of the old system that a switch would have left: the new one was booted.
    assert findings["UPG-001", "broker@new"]["outcome"] == "not-applicable"
    assert "every service began anew" in findings["UPG-001", "broker@new"]["reason"]
    assert findings["UPG-002", "broker@new"]["outcome"] == "passed"
    assert "message-bus : dbus -> broker" in compared["way"]["refusal"]
    assert compared["stages"] == ["old", "new", "back"]
    assert compared["toplevels"][0] == compared["toplevels"][2] != compared["toplevels"][1]
    assert compared["restored"] == []
    assert "usage, boot loader" not in printed
