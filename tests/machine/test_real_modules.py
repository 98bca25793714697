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
      # A database, a cache, and a program behind nginx that reaches both; jobs of cron.
      nixosConfigurations.app = host { imports = [ ./app.nix ]; networking.hostName = "app"; };
      nixosConfigurations.app-slips = host ({ lib, ... }: {
        imports = [ ./app.nix ];
        networking.hostName = "app-slips";
        users.users.nginx.extraGroups = lib.mkForce [ ];
        services.cron.systemCronJobs = lib.mkForce [ "0 25 * * * alice date" "@daily alcie date" ];
        systemd.services.certificate.environment = { NAME = lib.mkForce "app.exmaple"; ENDS = lib.mkForce "20250101000000Z"; };
      });
      # What the database needs to start is wrong: one cause, and what rests on it.
      nixosConfigurations.app-down = host ({ lib, ... }: {
        imports = [ ./app.nix ];
        networking.hostName = "app-down";
        services.postgresql.authentication = lib.mkBefore "locl app app peer";
      });
      nixosConfigurations.slips = host {
        networking.hostName = "slips";
        systemd.slices."user-".sliceConfig.MemoryMax = "1G";
        systemd.services.crash = { wantedBy = [ "multi-user.target" ]; script = "exit 7"; };
        systemd.services.misspelt = { wantedBy = [ "multi-user.target" ]; script = "sleep infinity"; serviceConfig.ProtectSytem = "strict"; };
      };
    };
}
"""

APP = """
{ pkgs, config, ... }:
let
  # Debian's programs look there for their locale and their time zone, and systemd for mount(8).
  folders = ''
    mkdir -p /usr/share /usr/lib
    ln -sfn ${pkgs.tzdata}/share/zoneinfo /usr/share/zoneinfo
    ln -sfn ${pkgs.glibcLocales}/lib/locale /usr/lib/locale
  '';
  app = pkgs.writeText "app.py" ''
    import http.server, os, socketserver, subprocess
    subprocess.run(["psql", "-tAc", "select 1", os.environ["DATABASE_URL"]], check=True)
    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(204)
            self.end_headers()
    server = socketserver.UnixStreamServer("/run/app/app.sock", Site)
    os.chmod("/run/app/app.sock", 0o660)
    server.serve_forever()
  '';
in
{
  system.activationScripts.folders = folders;
  networking.firewall.allowedTCPPorts = [ 22 80 443 ];
  services.postgresql = {
    enable = true;
    checkConfig = false; # runs the server where it is built, as root
    ensureDatabases = [ "app" ];
    ensureUsers = [ { name = "app"; ensureDBOwnership = true; } ];
  };
  services.redis.servers.cache = { enable = true; port = 6379; };
  services.cron = { enable = true; systemCronJobs = [ "*/5 * * * * alice date" ]; };
  users.groups.crontab = { }; # Debian's cron asks for it
  users.users.app = { isSystemUser = true; group = "app"; };
  users.groups.app = { };
  users.users.nginx.extraGroups = [ "app" ];
  systemd.services.app = {
    wantedBy = [ "multi-user.target" ];
    after = [ "postgresql.service" ];
    requires = [ "postgresql.service" ];
    path = [ config.services.postgresql.package ];
    environment = { DATABASE_URL = "postgresql:///app?host=/run/postgresql"; REDIS_URL = "redis://127.0.0.1:6379/0"; };
    serviceConfig = { User = "app"; RuntimeDirectory = "app"; RuntimeDirectoryMode = "0750"; ExecStart = "${pkgs.python3}/bin/python3 ${app}"; };
  };
  systemd.services.certificate = {
    before = [ "nginx.service" ];
    requiredBy = [ "nginx.service" ];
    path = [ pkgs.openssl ];
    environment = { OPENSSL_CONF = "${pkgs.openssl}/etc/ssl/openssl.cnf"; NAME = "app.example"; ENDS = "20990101000000Z"; };
    serviceConfig = { Type = "oneshot"; RemainAfterExit = true; StateDirectory = "certificate"; WorkingDirectory = "/var/lib/certificate"; };
    script = ''
      openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -not_before 20240101000000Z -not_after $ENDS -subj /CN=$NAME
      chown root:nginx key.pem
      chmod 640 key.pem
    '';
  };
  services.nginx = {
    enable = true;
    virtualHosts."app.example" = {
      forceSSL = true;
      sslCertificate = "/var/lib/certificate/cert.pem";
      sslCertificateKey = "/var/lib/certificate/key.pem";
      locations."/".proxyPass = "http://unix:/run/app/app.sock";
    };
  };
  systemd.services.nginx.serviceConfig.StateDirectory = "nginx";
}
"""
#: What is tried of the hosts with a database; the rest is tried on the others.
OF_APP = "not undeclared and not rollback"


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
    (folder / "app.nix").write_text(APP)
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


def test_a_good_host_with_a_database_has_no_finding(
    overrides: Mapping[str, str], tmp_path: Path
) -> None:
    assert judged("app", overrides, tmp_path, "-k", OF_APP) == {}


def test_slips_around_a_program_behind_nginx_are_found_and_nothing_else(
    overrides: Mapping[str, str], tmp_path: Path
) -> None:
    found = judged("app-slips", overrides, tmp_path, "-k", OF_APP)
    assert set(found) == {"NET-021", "TLS-008", "UNIT-013", "AUTH-044"}
    assert "/run/app/app.sock is app:app 0660" in found["NET-021"]["reason"]
    assert found["NET-021"]["remedy"] == 'users.users."nginx".extraGroups = [ "app" ];'
    assert "cert.pem ended on 2025-01-01" in found["TLS-008"]["reason"]
    assert "is for app.exmaple, and the site answers to app.example" in found["TLS-008"]["reason"]
    assert "25 is no hour" in found["UNIT-013"]["reason"]
    assert "services.cron.systemCronJobs: alcie" in found["AUTH-044"]["reason"]


def test_what_rests_on_a_database_that_does_not_start_goes_back_to_it(
    overrides: Mapping[str, str], tmp_path: Path
) -> None:
    found = judged("app-down", overrides, tmp_path, "-k", OF_APP)
    assert 'invalid connection type "locl"' in found["BOOT-001"]["reason"]
    assert [name for name, one in found.items() if not one["caused_by"]] == ["BOOT-001"]
    assert {"UNIT-004", "NET-021"} <= set(found["BOOT-001"]["explains"])
