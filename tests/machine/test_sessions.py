"""Who of the declared people can open a session, in a container."""

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

# Carol's shell is not there, PAM refuses dave, and erin's account has expired, as it is to be.
FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = builtins.mapAttrs (_: more: nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ more {
        boot.isContainer = true;
        system.stateVersion = "25.11";
        networking.hostName = "it";
        users.users.alice.isNormalUser = true;
        users.users.erin.isNormalUser = true;
        systemd.services.expire = {
          wantedBy = [ "multi-user.target" ];
          serviceConfig.Type = "oneshot";
          script = "/run/current-system/sw/bin/chage -E 1 erin";
        };
      } ];
    }) {
      good = { };
      bad = { lib, pkgs, ... }: {
        users.users.carol = { isNormalUser = true; shell = "/run/current-system/sw/bin/no-such-shell"; };
        users.users.dave.isNormalUser = true;
        systemd.services.refuse = {
          wantedBy = [ "multi-user.target" ];
          serviceConfig.Type = "oneshot";
          path = [ pkgs.coreutils pkgs.gnugrep ];
          script = ''
            file=$(readlink -f /etc/pam.d/login)
            module=$(grep -o '[^ ]*pam_unix.so' "$file" | head -n 1)
            { echo "account requisite ''${module%unix.so}succeed_if.so user != dave"; cat "$file"; } > /run/login
            rm /etc/pam.d/login
            cp /run/login /etc/pam.d/login
          '';
        };
      };
    };
  };
}
"""


def judged(tmp_path: Path, name: str) -> Any:
    (tmp_path / "flake.nix").write_text(FLAKE)
    select = ("--nixos-profile", "declared", "-k", "AUTH-036")
    (found,) = judge(name, tmp_path, *select, flake=tmp_path)[1]["findings"]
    return found


def test_people_with_a_session_and_one_whose_account_has_expired(tmp_path: Path) -> None:
    found = judged(tmp_path, "good")
    assert found["outcome"] == "passed", found
    assert set(found["observed"]) == {"alice", "erin"}


def test_each_without_a_session_is_told(tmp_path: Path) -> None:
    found = judged(tmp_path, "bad")
    assert found["outcome"] == "failed"
    assert found["observed"] == {
        "alice": "a session",
        "carol": "its shell /run/current-system/sw/bin/no-such-shell is not there",
        "dave": "PAM refuses it",
        "erin": "a session",
    }
    assert 'users.users."carol".shell' in found["remedy"]
    assert '"dave"' not in found["remedy"]
