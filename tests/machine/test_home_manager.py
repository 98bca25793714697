"""Homes of home-manager, in a container. The module is a model of home-manager's own, made after its
``nixos/default.nix``, ``modules/lib-bash/activation-init.sh`` and ``modules/files.nix``: the service
with its login shell, the roots, the links, the collision that ends an activation. Its options are
``home.file.NAME.text`` and ``systemd.user.services`` alone, and it makes no profile of Nix.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.machine.test_example_flake import OVERRIDES, judge, outcomes

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = builtins.mapAttrs (name: more: nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ./home-manager.nix ./host.nix more ];
    }) {
      good = { };
      bad = { lib, ... }: {
        # Of bob a file of his own is in the way; of carol somebody took a link away and put another file in the place of one; dave's
        # home is of a generation that the system does not name.
        users.users = lib.genAttrs [ "bob" "carol" "dave" ] (_: { isNormalUser = true; });
        home-manager.users = lib.genAttrs [ "bob" "carol" "dave" ] (_: {
          home.file.".gitconfig".text = "x";
          home.file.".config/app/config".text = "y";
        });
        systemd.tmpfiles.rules = [ "d /home/bob 0700 bob users -" "f /home/bob/.gitconfig 0600 bob users - own" ];
        systemd.services.vandal = {
          wantedBy = [ "multi-user.target" ];
          after = [ "home-manager-carol.service" "home-manager-dave.service" ];
          serviceConfig.Type = "oneshot";
          script = ''
            rm -f /home/carol/.gitconfig /home/carol/.config/app/config
            echo other > /home/carol/.config/app/config
            ln -sfn /nix/store /home/dave/.local/state/home-manager/gcroots/current-home
          '';
        };
      };
    };
  };
}
"""
HOST = """
{ ... }: {
  boot.isContainer = true;
  system.stateVersion = "25.11";
  networking.hostName = "it";
  users.users.alice = { isNormalUser = true; };
  home-manager.users.alice.home.file = {
    ".gitconfig".text = "[user]\\n  name = Alice\\n";
    ".config/app/config".text = "a = 1\\n";
  };
  home-manager.users.alice.systemd.user.services.greeter = "[Service]\\nExecStart=/run/current-system/sw/bin/sleep infinity\\n[Install]\\nWantedBy=default.target\\n";
}
"""
# What home-manager builds of a home: `activate` beside the files that it links.
GENERATION = """
{ lib, pkgs }: user:
let
  unitFiles = name: text:
    lib.optional (lib.hasInfix "WantedBy=default.target" text) (lib.nameValuePair ".config/systemd/user/default.target.wants/${name}.service" { inherit text; })
    ++ [ (lib.nameValuePair ".config/systemd/user/${name}.service" { inherit text; }) ];
  files = (user.home.file or { }) // lib.listToAttrs (lib.concatLists (lib.mapAttrsToList unitFiles (user.systemd.user.services or { })));
  homeFiles = pkgs.runCommand "home-manager-files" { } (
    "mkdir -p $out\\n" + lib.concatStrings (lib.mapAttrsToList (path: file: ''
      mkdir -p "$out/$(dirname '${path}')"
      ln -s ${pkgs.writeText "hm_file" file.text} "$out/${path}"
    '') files)
  );
in
pkgs.runCommand "home-manager-generation" { } ''
    mkdir -p $out
    ln -s ${homeFiles} $out/home-files
    cat > $out/activate <<'SCRIPT'
    #!${pkgs.bash}/bin/bash
    set -eu -o pipefail
    echo "Starting Home Manager activation"
    [[ $USER == ${user.home.username} && $HOME -ef ${user.home.homeDirectory} ]] || { echo "Error: HOME is set to $HOME of $USER" >&2; exit 1; }
    newGenPath=GENERATION
    files=$(readlink -e "$newGenPath/home-files")
    each() { cd "$files" && find . -type f -o -type l | sed 's,^[.]/,,'; }
    while IFS= read -r path; do
      target=$HOME/$path
      if [ -e "$target" ] && ! readlink "$target" | grep -q home-manager-files && ! cmp -s "$target" "$files/$path"; then
        echo "Existing file '$target' would be clobbered" >&2
        exit 1
      fi
    done < <(each)
    mkdir -p "$HOME/.local/state/home-manager/gcroots"
    ln -sfn "$newGenPath" "$HOME/.local/state/home-manager/gcroots/current-home"
    while IFS= read -r path; do
      mkdir -p "$(dirname "$HOME/$path")"
      ln -sfn "$files/$path" "$HOME/$path"
    done < <(each)
    status=$(systemctl --user is-system-running 2>&1 || true)
    if [[ $status == running || $status == degraded ]]; then
      systemctl --user daemon-reload
      for unit in "$HOME"/.config/systemd/user/default.target.wants/*; do
        [[ ! -e $unit ]] || systemctl --user start "''${unit##*/}"
      done
    else
      echo "User systemd daemon not running. Skipping reload."
    fi
    ${user.home.activation or ""}
    SCRIPT
    sed -i "s,GENERATION,$out,; s,^    ,," $out/activate
    chmod +x $out/activate
''
"""
MODEL = """
{ config, lib, pkgs, ... }:
let
  cfg = config.home-manager;
  homeOf = name: config.users.users.${name}.home;
  generation = import ./generation.nix { inherit lib pkgs; };
in
{
  options.home-manager.users = lib.mkOption {
    default = { };
    type = lib.types.attrsOf (lib.types.submodule {
      options.home.file = lib.mkOption { default = { }; type = lib.types.attrsOf lib.types.attrs; };
      options.systemd.user.services = lib.mkOption { default = { }; type = lib.types.attrsOf lib.types.str; };
    });
  };
  config.systemd.services = lib.mapAttrs' (name: user: lib.nameValuePair "home-manager-${name}" {
    description = "Home Manager environment for ${name}";
    wantedBy = [ "multi-user.target" ];
    before = [ "systemd-user-sessions.service" ];
    unitConfig.RequiresMountsFor = homeOf name;
    stopIfChanged = false;
    path = [ pkgs.coreutils pkgs.findutils pkgs.gnugrep pkgs.gnused pkgs.diffutils ];
    serviceConfig = {
      User = name;
      Type = "oneshot";
      TimeoutStartSec = "5m";
      SyslogIdentifier = "hm-activate-${name}";
      ExecStart =
        let
          setupEnv = pkgs.writeScript "hm-setup-env" ''
            #!${pkgs.bash}/bin/bash -e
            exec "$1/activate" --driver-version 1
          '';
        in
        "${setupEnv} ${generation (lib.recursiveUpdate user { home = { username = name; homeDirectory = homeOf name; }; })}";
    };
  }) cfg.users;
}
"""
SELECT = ("--nixos-profile", "declared", "-k", "HOME-001 or UNIT-009")


def judged(tmp_path: Path, name: str) -> Any:
    for file, text in (
        ("flake.nix", FLAKE),
        ("host.nix", HOST),
        ("home-manager.nix", MODEL),
        ("generation.nix", GENERATION),
    ):
        (tmp_path / file).write_text(text)
    return judge(name, tmp_path, *SELECT, flake=tmp_path)[1]


def test_homes_as_the_system_says(tmp_path: Path) -> None:
    found = outcomes(judged(tmp_path, "good"))
    assert found == {"HOME-001": "passed", "UNIT-009": "passed"}


def test_each_home_that_is_otherwise_is_told(tmp_path: Path) -> None:
    report = judged(tmp_path, "bad")
    [found] = [f for f in report["findings"] if f["control"] == "HOME-001"]
    assert found["outcome"] == "failed"
    wrong = found["observed"]
    assert wrong["alice"] == []
    assert wrong["bob"][0] == "home-manager-bob.service has failed: exit-code"
    assert "the home is of no generation" in wrong["bob"][1]
    assert wrong["carol"] == [".config/app/config is something else", ".gitconfig is missing"]
    [stale] = wrong["dave"]
    assert stale.startswith("the home is of /nix/store, not of")
