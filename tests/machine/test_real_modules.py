"""Hosts of nixpkgs' own modules and functions, booted as containers and as VMs with programs of Debian.

``PYTEST_NIXOS_REAL_MODULES`` names the nixpkgs tree; ``tests/real_modules/prepare`` needs a Debian mirror, root,
and some minutes the first time. ``PYTEST_NIXOS_REAL_VM=1`` boots the VMs, which take minutes where they are emulated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

Json = Any
TREE = os.environ.get("PYTEST_NIXOS_REAL_MODULES", "")
PREPARE = Path(__file__).parents[1] / "real_modules/prepare"
NIX_CONFIG = "sandbox = false\nsubstitute = false\nbuild-users-group =\n"
pytestmark = pytest.mark.skipif(
    not TREE, reason="PYTEST_NIXOS_REAL_MODULES names no nixpkgs tree whose modules could boot"
)
with_vms = pytest.mark.skipif(
    not os.environ.get("PYTEST_NIXOS_REAL_VM"), reason="PYTEST_NIXOS_REAL_VM asks for no VMs"
)

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.05";
  outputs = { self, nixpkgs }:
    let
      host = module: nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ base module ]; };
      base = { pkgs, ... }: {
        system.stateVersion = "24.05";
        fileSystems."/" = { device = "/dev/vda1"; fsType = "ext4"; };
        boot.loader.grub.device = "/dev/vda";
        services.openssh.enable = true;
        users.users.alice = { isNormalUser = true; extraGroups = [ "wheel" ]; };
      };
    in
    {
      nixosConfigurations.good = host { networking.hostName = "good"; };
      nixosConfigurations.server = host ({ pkgs, ... }: {
        networking.hostName = "server";
        networking.nftables.enable = true;
        networking.firewall.allowedTCPPorts = [ 22 80 4222 ];
        security.sudo.wheelNeedsPassword = false;
        users.users.alice.openssh.authorizedKeys.keys = [ "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZMfk3QPfQJZMfk3QPfQJZMfk3QPfQJZMfk3QPfQJZM alice" ];
        services.nginx = {
          enable = true;
          virtualHosts."server.example" = { root = "/var/www"; locations."/api".proxyPass = "http://127.0.0.1:8222"; };
        };
        # Debian's nginx keeps its buffers there.
        systemd.services.nginx.serviceConfig.StateDirectory = "nginx";
        systemd.tmpfiles.rules = [ "d /var/www 0755 nginx nginx -" ];
        services.nats = { enable = true; jetstream = true; settings.http_port = 8222; };
        services.prometheus.exporters.node.enable = true;
        boot.kernel.sysctl."vm.swappiness" = 10;
        systemd.timers.tidy = { wantedBy = [ "timers.target" ]; timerConfig.OnCalendar = "daily"; };
        systemd.services.tidy = { serviceConfig.Type = "oneshot"; script = "find /var/www -mtime +7 -delete"; };
        nix.gc = { automatic = true; dates = "weekly"; };
      });
      nixosConfigurations.machine-slips = host {
        networking.hostName = "machine-slips";
        # Taken away again by hand, and one more opened.
        networking.firewall.allowedTCPPorts = [ 8080 ];
        networking.firewall.extraCommands = ''
          iptables -D nixos-fw -p tcp --dport 8080 -j nixos-fw-accept
          iptables -I nixos-fw -p tcp --dport 9999 -j nixos-fw-accept
        '';
        boot.kernel.sysctl."vm.swapiness" = 10;
        systemd.timers.tidy.timerConfig.OnCalendar = "daily";
        systemd.services.tidy = { serviceConfig.Type = "oneshot"; script = "true"; };
      };
      nixosConfigurations.slips = host {
        networking.hostName = "slips";
        systemd.slices."user-".sliceConfig.MemoryMax = "1G";
        systemd.services.crash = { wantedBy = [ "multi-user.target" ]; script = "exit 7"; };
        systemd.services.misspelt = { wantedBy = [ "multi-user.target" ]; script = "sleep infinity"; serviceConfig.ProtectSytem = "strict"; };
      };
    };
}
"""


@pytest.fixture(scope="module")
def overrides() -> Mapping[str, str]:
    """What stands for nixpkgs: its own modules, and packages made of Debian's."""
    told = subprocess.run(
        [PREPARE, TREE, "--json"],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "NIX_CONFIG": NIX_CONFIG},
    ).stdout
    found: dict[str, str] = json.loads(told)
    return found


def judged(
    host: str,
    overrides: Mapping[str, str],
    folder: Path,
    *arguments: str,
    backend: str = "container",
) -> Mapping[str, Json]:
    """Judge one host, and return what was found wrong: control to finding."""
    (folder / "flake.nix").write_text(FLAKE)
    report = folder / "report.json"
    words = [w for name, ref in overrides.items() for w in ("--nixos-override-input", name, ref)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"),
            *("--nixos-backend", backend, "--nixos-flake", f"path:{folder}#{host}", *words),
            *("--nixos-report", f"json:{report}", *arguments),
        ],
        cwd=folder,
        env={**os.environ, "NIX_CONFIG": NIX_CONFIG},
        check=False,
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stdout + done.stderr
    findings = json.loads(report.read_text())["findings"]
    passed = [f for f in findings if f["outcome"] == "passed"]
    assert len(passed) > (0 if arguments else 40), done.stdout
    return {f["control"]: f for f in findings if f["outcome"] not in ("passed", "not-applicable")}


@pytest.mark.parametrize("host", ["good", "server"])
def test_a_good_host_has_no_finding(
    host: str, overrides: Mapping[str, str], tmp_path: Path
) -> None:
    assert judged(host, overrides, tmp_path) == {}


def test_what_only_more_profiles_try_has_no_false_finding(
    overrides: Mapping[str, str], tmp_path: Path
) -> None:
    """What is tried on the machine; what such a host does not set is for each profile to tell."""
    found = judged(
        "server", overrides, tmp_path, "--nixos-profile", "hardened", "-k", "GEN-010 or NET-006"
    )
    assert found == {}


def test_slips_are_found_and_nothing_else(overrides: Mapping[str, str], tmp_path: Path) -> None:
    found = judged("slips", overrides, tmp_path, "-k", "not undeclared and not rollback")
    assert set(found) == {"BOOT-001", "SBX-D01", "UNIT-001", "UNIT-002"}
    assert "user-.slice" in found["UNIT-001"]["reason"]
    assert "asDropin" in found["UNIT-001"]["remedy"]
    assert "crash.service" in found["BOOT-001"]["reason"]
    assert "ProtectSystem" in found["UNIT-002"]["reason"]


@with_vms
@pytest.mark.parametrize("host", ["good", "server"])
def test_a_good_vm_has_no_finding(host: str, overrides: Mapping[str, str], tmp_path: Path) -> None:
    """By nixpkgs' own run script and stage 1; the firewalls are iptables' and nftables'."""
    assert judged(host, overrides, tmp_path, backend="vm") == {}


@with_vms
def test_slips_of_a_vm_are_found_and_nothing_else(
    overrides: Mapping[str, str], tmp_path: Path
) -> None:
    found = judged("machine-slips", overrides, tmp_path, "-k", "not rollback", backend="vm")
    assert set(found) == {"FW-002", "FW-003", "FW-006", "SYS-001", "UNIT-005"}
    assert "tcp 8080" in found["FW-002"]["reason"]
    assert "tcp 9999" in found["FW-003"]["reason"]
    assert "vm.swappiness" in found["SYS-001"]["remedy"]
    assert "tidy.timer" in found["UNIT-005"]["reason"]
