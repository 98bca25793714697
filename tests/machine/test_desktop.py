"""A host with a display manager, booted: its greeter is seen, its screen is in the HTML report, and what breaks it is
told. ``PYTEST_NIXOS_DESKTOP=1``; some minutes without KVM.

The stand-in has no compositor: the display manager is a service that opens a greeter's session at PAM and logind, as
those of nixpkgs do, and draws on its text console.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))
pytestmark = pytest.mark.skipif(
    not (OVERRIDES and os.environ.get("PYTEST_NIXOS_DESKTOP")),
    reason="PYTEST_NIXOS_DESKTOP=1 boots a host of the stand-in",
)

FLAKE = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.05";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.kiosk = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ({ pkgs, ... }: {
        networking.hostName = "kiosk";
        system.stateVersion = "24.05";
        boot.loader.grub.device = "/dev/vda";
        fileSystems."/" = { device = "/dev/vda1"; fsType = "ext4"; };
        systemd.defaultUnit = "graphical.target";
        users.groups.greeter = { };
        users.users.greeter = { isSystemUser = true; group = "greeter"; };
        systemd.services.display-manager = {
          wantedBy = [ "graphical.target" ];
          after = [ "systemd-user-sessions.service" "systemd-logind.service" ];
          environment = { XDG_SESSION_CLASS = "greeter"; XDG_SEAT = "seat0"; XDG_VTNR = "7"; };
          serviceConfig = {
            ExecStart = "${pkgs.bash}/bin/bash -c 'printf \\"welcome to the kiosk\\"; exec ${pkgs.coreutils}/bin/sleep infinity'";
            User = "greeter";
            PAMName = "login";
            TTYPath = "/dev/tty7";
            StandardInput = "tty";
            StandardOutput = "tty";
            Restart = "always";
            RestartSec = "200ms";
          };
        };
      }) ];
    };
  };
}
"""
CHECKS = """
import time

import pytest

from pytest_nixos.checks.desktop.test_desktop import _look, _problem

UNIT = "display-manager.service"


def told(machine, drop_in):
    machine.run(
        f"mkdir -p /run/systemd/system/{UNIT}.d; cat > /run/systemd/system/{UNIT}.d/x.conf;"
        f" systemctl daemon-reload; systemctl reset-failed {UNIT}; systemctl restart {UNIT}; sleep 3",
        stdin=f"[Service]\\n{drop_in}\\n".encode(), timeout_s=300,
    )
    early = _look(machine)
    time.sleep(5)
    return _problem(UNIT, early, _look(machine))


@pytest.mark.nixos_destructive
def test_what_breaks_a_desktop_is_told(nixos_machine):
    assert told(nixos_machine, "") == ""
    assert "nothing is on its screen" in told(nixos_machine, "PAMName=")
    loop = told(nixos_machine, "ExecStart=\\nExecStart=/run/current-system/sw/bin/sleep 1")
    assert "again and again" in loop or "failed" in loop, loop


@pytest.mark.nixos_destructive
def test_fails(nixos_machine):
    nixos_machine.run("printf '%0400d' 8 > /dev/tty1; chvt 1 2>/dev/null; sleep 2")
    assert 0, "to see the screen"
"""


def test_a_desktop_is_seen_and_shown(tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text(FLAKE)
    (tmp_path / "test_kiosk.py").write_text(CHECKS)
    inputs = [
        word for name, ref in OVERRIDES.items() for word in ("--nixos-override-input", name, ref)
    ]
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("--nixos-flake", f"path:{tmp_path}#kiosk", "--nixos-suite", "desktop"),
            *("--nixos-report", f"json:{tmp_path}/report.json"),
            *("--nixos-report", f"html:{tmp_path}/report.html", *inputs),
            str(tmp_path / "test_kiosk.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    ran = ended.stdout[-9000:] + ended.stderr[-3000:]
    [finding] = json.loads((tmp_path / "report.json").read_text())["findings"]
    page = (tmp_path / "report.html").read_text()

    assert (finding["control"], finding["outcome"]) == ("DESK-001", "passed"), finding
    assert finding["observed"]["its screen"] == ["greeter (sleep)"], finding
    assert "2 passed, 1 failed" in ran or "1 failed, 2 passed" in ran, ran
    assert 'alt="the screen of kiosk after its boot"' in page
    assert 'alt="the screen of kiosk when test_fails[kiosk] failed"' in page
