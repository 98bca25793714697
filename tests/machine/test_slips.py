"""A host with slips that Nix and systemd take without a word, and the same host without them, in containers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.machine.test_behaviour_checks import selected
from tests.machine.test_example_flake import OVERRIDES, judge, passed
from tests.machine.test_field_variants import findings, flake_of

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

CONTROLS = (
    "NET-021",
    "AUTH-044",
    "AUTH-045",
    "FS-026",
    "FW-006",
    "UNIT-013",
    "UNIT-017",
    "UNIT-018",
)
HOST = """
  boot.loader.grub.enable = false;
  fileSystems."/" = { device = "/dev/vda1"; fsType = "ext4"; };
  users.mutableUsers = false;
  services.openssh.enable = true;
  users.users.ada = { isNormalUser = true; extraGroups = [ "wheel" ]; openssh.authorizedKeys.keys = [ "@KEY@" ]; };
  security.sudo.wheelNeedsPassword = @ASKS@;
  users.groups.media.members = [ "@ADA@" ];
  security.pam.loginLimits = [ { domain = "@GROUP@"; type = "-"; item = "nofile"; value = "4096"; } ];
  systemd.services.app = service { serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --bind 127.0.0.1 3000"; };
  systemd.services.proxy = service { serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server 80 --directory ${pkgs.writeText "nginx.conf" ''
    # proxy_pass http://127.0.0.1:9999;
    server { listen 0.0.0.0:80; location / { proxy_pass http://127.0.0.1:@APP@; } }
  ''}"; };
  systemd.services.admin = service { serviceConfig = { ExecStart = "${pkgs.python3}/bin/python3 -m http.server 8081"; IPAddressDeny = "any"; IPAddressAllow = "@FROM@"; }; };
  networking.firewall.allowedTCPPorts = [ 80 8081 ];
  environment.etc."app/config.toml".text = "a = 1";
  systemd.services.skipped = service { unitConfig.ConditionPathExists = "/etc/@FOLDER@/config.toml"; };
  systemd.services.site = service { serviceConfig.WorkingDirectory = "/"; environment.ROOT = "${pkgs.runCommand "site" { } "mkdir -p $out/dist"}/@DIST@"; };
  systemd.services.nginx = { wantedBy = [ "multi-user.target" ]; serviceConfig.Type = "oneshot"; script = ''echo 'nginx: [warn] conflicting server name "@NAME@" on 0.0.0.0:80, @IGNORED@' >&2''; };
  systemd.services.reads = service { serviceConfig.EnvironmentFile = "/etc/@FOLDER@/config.env"; };
  environment.etc."app/config.env".text = "A=1";
  systemd.services.arch = service { unitConfig.ConditionArchitecture = "@ARCH@"; };
  systemd.services.worker = service { serviceConfig.StateDirectory = "worker-data"; };
  systemd.services.backup = { startAt = "daily"; serviceConfig.Type = "oneshot"; script = "tar -cf /var/backup.tar /var/lib/worker-@DATA@"; };
  systemd.services.pages = service { serviceConfig = { ExecStart = "${pkgs.python3}/bin/python3 -m http.server 8082 --bind 127.0.0.1 --directory /home/ada"; ProtectHome = "@HOME@"; }; };
  systemd.services.ui = service { environment.API_URL = "http://localhost:@APP@/v1"; };
"""
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKo9ZhG0u1rM1n8YlQxJH3Zk0sG8W1o6n5lYVq3h8c2p ada"
#: Mark to what is right and what is not.
SLIPS = {
    "@KEY@": (KEY, KEY),
    "@APP@": ("3000", "3001"),
    "@ADA@": ("ada", "adda"),
    "@GROUP@": ("@audio", "@audoi"),
    "@FROM@": ("10.0.0.0/8", "localhost"),
    "@FOLDER@": ("app", "ap"),
    "@DIST@": ("dist", "public"),
    "@NAME@": ("a", "a"),
    "@IGNORED@": ("taken", "ignored"),
    "@DATA@": ("data", "dta"),
    "@ARCH@": ("x86-64", "x86_64"),
    "@ASKS@": ("false", "true"),
    "@HOME@": ("read-only", "tmpfs"),
}


def host(*, right: bool) -> str:
    text = HOST
    for mark, (good, bad) in SLIPS.items():
        text = text.replace(mark, good if right else bad)
    return text


def outcome(tmp_path: Path, text: str) -> tuple[Any, str]:
    """Judge a host that is no container by itself as one, which boots sooner."""
    flake = flake_of(tmp_path, text)
    module = flake / "host.nix"
    module.write_text(module.read_text().replace("boot.isContainer = true;", ""))
    chosen = ("--nixos-backend", "container", *selected(tmp_path, *CONTROLS))
    _, report, printed = judge("it", tmp_path, *chosen, flake=flake)
    return report, printed


def test_each_slip_is_told_with_what_is_meant(tmp_path: Path) -> None:
    report, printed = outcome(tmp_path, host(right=False))
    found = findings(report)
    reached = found["NET-021"]
    assert "127.0.0.1:3001, which proxy.service is told to reach" in reached["reason"], printed
    assert "on 3000 listens app.service" in reached["reason"]
    assert (
        'systemd.services."ui".environment.API_URL = lib.mkForce "http://localhost:3000/v1";'
        in reached["remedy"]
    )
    named = found["AUTH-044"]["reason"]
    assert "audoi: no such group (meant: audio?)" in named, printed
    assert 'users.groups."media".members: adda: no such account (meant: ada?)' in named
    assert "nobody becomes root: ada of wheel has no password" in found["AUTH-045"]["reason"]
    assert 'users.users."ada".hashedPasswordFile' in found["AUTH-045"]["remedy"]
    path = found["FS-026"]
    assert "skipped.service: ConditionPathExists= names /etc/ap/config.toml" in path["reason"]
    assert "site has dist" in path["reason"]
    assert (
        'systemd.services."skipped".unitConfig.ConditionPathExists'
        ' = lib.mkForce "/etc/app/config.toml";'
    ) in path["remedy"]
    assert "unit:reads.service" in path["blames"]
    assert (
        "/var/lib/worker-dta, which is not there (meant: /var/lib/worker-data?)" in path["reason"]
    )
    assert 'conflicting server name "a" on 0.0.0.0:80' in found["UNIT-013"]["reason"]
    assert "services.nginx.virtualHosts" in found["UNIT-013"]["remedy"]
    assert "ConditionArchitecture=x86_64" in found["UNIT-017"]["reason"]
    assert 'ConditionArchitecture = lib.mkForce "x86-64";' in found["UNIT-017"]["remedy"]
    assert "/home/ada, which ProtectHome=tmpfs hides from it" in found["UNIT-018"]["reason"]
    told = found["FW-006"]["reason"]
    assert "8081 (admin.service takes packets of its own machine only" in told


def test_the_same_host_without_them_has_no_finding(tmp_path: Path) -> None:
    report, printed = outcome(tmp_path, host(right=True))
    assert passed(report) == set(CONTROLS), printed
