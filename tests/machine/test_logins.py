"""Declared users log in as people do: by ssh from outside, and by password on a terminal."""

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

CONTROLS = (
    *("AUTH-037", "AUTH-038", "AUTH-040", "AUTH-041"),
    *("FS-025", "SSH-025", "SSH-026", "SSH-027", "UNIT-014"),
)
CHOSEN = "guest_logins or declared_key or refuses_with or with_a_password_can or login_starts or become_root or units_of_users or AUTH-041 or in_its_groups or declared_key_is_one or file_of_etc"
GUEST = Path(__file__).parent / "on_guest/guest_logins.py"
#: A key that nobody has the private half of.
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJw0mE1uF9Oe3G8kPDyfS3YyuKz9zB5tYbMJJ2Yd2x0p somebody"
FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations = builtins.mapAttrs (_: more: nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ more ({ pkgs, ... }: {
        system.stateVersion = "25.11";
        networking.hostName = "it";
        services.openssh.enable = true;
        services.openssh.settings = { PermitRootLogin = "no"; AllowUsers = [ "alice" "bob" ]; };
        users.users = {
          alice = { isNormalUser = true; initialPassword = "theirs"; extraGroups = [ "wheel" ]; openssh.authorizedKeys.keys = [ "KEY" ]; };
          bob = { isNormalUser = true; linger = true; };
          carol = { isNormalUser = true; openssh.authorizedKeys.keys = [ "KEY" ]; };
        };
        environment.etc."mail.conf" = { text = "x"; mode = "0600"; user = "alice"; };
        systemd.user.services.greeter = { wantedBy = [ "default.target" ]; serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity"; };
      }) ];
    }) {
      it = { boot.isContainer = true; };
      vm = { };
      # Alice's shell is not there, and a file of another module lets root in.
      bad = { lib, pkgs, ... }: {
        boot.isContainer = true;
        systemd.user.services.broken = { wantedBy = [ "default.target" ]; serviceConfig.ExecStart = "${pkgs.coreutils}/bin/false"; };
        systemd.user.services.restless = { wantedBy = [ "default.target" ]; startLimitIntervalSec = 0; serviceConfig = { ExecStart = "${pkgs.coreutils}/bin/false"; Restart = "always"; RestartSec = 5; }; };
        # What evaluates and is dropped, or fits nothing: a misspelt group, a cut hash and key, an owner that nobody is.
        users.users.dave = { isNormalUser = true; extraGroups = [ "vidoe" ]; hashedPassword = "$6$salt$short"; openssh.authorizedKeys.keys = [ (builtins.substring 0 60 "KEY") ]; };
        environment.etc."relay.conf" = { text = "x"; mode = "0640"; group = "relays"; };
        # As somebody does by hand.
        systemd.services.stop-lingering = { wantedBy = [ "multi-user.target" ]; after = [ "linger-users.service" ]; serviceConfig.Type = "oneshot"; script = "/run/current-system/sw/bin/loginctl disable-linger bob"; };
        users.users.bob.extraGroups = [ "wheel" ];
        users.users.carol = { extraGroups = [ "wheel" ]; initialPassword = "hers"; };
        security.pam.services.sudo.text = lib.mkForce "auth required ${pkgs.linux-pam}/lib/security/pam_deny.so\\naccount required ${pkgs.linux-pam}/lib/security/pam_permit.so\\n";
        users.users.alice.shell = "/run/current-system/sw/bin/no-such-shell";
        environment.etc."ssh/sshd_config".text = lib.mkForce "PermitRootLogin yes\\nUsePAM yes\\nAuthorizedKeysFile /etc/ssh/authorized_keys.d/%u\\nHostKey /etc/ssh/ssh_host_ed25519_key\\n";
      };
    };
  };
}
""".replace("KEY", KEY)


def found(tmp_path: Path, host: str, *arguments: str) -> dict[str, Any]:
    """Run the guest's tests on a good host and the controls about logins, in one boot."""
    (tmp_path / "flake.nix").write_text(FLAKE)
    tests = () if host == "bad" else (str(GUEST),)
    words = (
        "--nixos-suite",
        "ssh",
        "--nixos-suite",
        "users-auth",
        "--nixos-suite",
        "filesystem",
        "--nixos-suite",
        "units",
        "--nixos-profile",
        "declared",
        "-k",
        CHOSEN,
        *tests,
    )
    status, report, printed = judge(host, tmp_path, *words, *arguments, flake=tmp_path)
    assert status == (1 if host == "bad" else 0), printed
    return {finding["control"]: finding for finding in report["findings"]}


def test_in_a_container(tmp_path: Path) -> None:
    seen = found(tmp_path, "it")
    assert {seen[control]["outcome"] for control in CONTROLS} == {"passed"}, seen
    assert seen["AUTH-037"]["observed"].keys() == {"alice"}
    assert seen["SSH-025"]["observed"] == {"alice": "a login"}
    assert set(seen["SSH-026"]["observed"]) == {"root", "carol"}


@pytest.mark.skipif(not os.environ.get("PYTEST_NIXOS_LOGINS"), reason="PYTEST_NIXOS_LOGINS=1")
def test_in_a_vm(tmp_path: Path) -> None:
    seen = found(tmp_path, "vm", "--nixos-backend", "vm")
    assert {seen[control]["outcome"] for control in CONTROLS} == {"passed"}, seen


def test_a_host_whose_people_cannot_log_in(tmp_path: Path) -> None:
    seen = found(tmp_path, "bad")
    assert seen["SSH-025"]["outcome"] == seen["SSH-026"]["outcome"] == "failed", seen
    assert seen["AUTH-037"]["outcome"] == "failed"
    assert seen["AUTH-038"]["outcome"] == "failed"
    assert "carol: sudo refuses" in seen["AUTH-038"]["reason"]
    assert seen["AUTH-038"]["observed"]["bob"] == "unknown: no password opens the account"
    wrong = seen["UNIT-014"]["observed"]["wrong"]
    # What had failed in a manager that still ran is UNIT-009's.
    assert "restless.service is started again and again" in wrong["carol"]
    assert "broken.service" in f"{wrong} {seen['UNIT-009']['observed']}"
    assert wrong["bob"][0] == "lingers, and has no manager"
    said = seen["SSH-025"]["observed"]
    assert "sshd does not let the user in" in said["alice"]
    assert seen["SSH-026"]["observed"]["root"] == "a login"
    assert seen["AUTH-040"]["reason"] == "dave: vidoe: no such group (meant: video?)"
    assert seen["AUTH-040"]["remedy"] == 'users.users."dave".extraGroups = lib.mkForce [ "video" ];'
    assert seen["AUTH-041"]["observed"] == ["dave"]
    assert "dave" in seen["SSH-027"]["reason"] and "carol" not in seen["SSH-027"]["reason"]
    assert seen["FS-025"]["observed"] == {"/etc/relay.conf": "has the group root, declared relays"}
