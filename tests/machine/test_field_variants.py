"""Other hosts of the kinds that were once judged wrongly, in containers: the right verdict, and one
cause first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.machine.test_behaviour_checks import selected
from tests.machine.test_example_flake import OVERRIDES, failing, judge, passed

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.it = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ ./host.nix ]; };
  };
}
"""
BASE = """
{ pkgs, lib, ... }:
let
  sleep = "${pkgs.coreutils}/bin/sleep infinity";
  service = more: lib.mkMerge [ { wantedBy = [ "multi-user.target" ]; serviceConfig.ExecStart = lib.mkDefault sleep; } more ];
in
{
  boot.isContainer = true;
  system.stateVersion = "25.11";
  networking.hostName = "it";
"""
#: A socket with a misspelt directive, a cycle of three, a calendar that is no time, a service that
#: crashes late and stays down, and agenix without its key.
ONE = """
  systemd.sockets.door = { wantedBy = [ "sockets.target" ]; listenStreams = [ "/run/door.sock" ]; socketConfig.SocketMdoe = "0600"; };
  systemd.services.door.serviceConfig.ExecStart = sleep;
  systemd.services.dawn = service { after = [ "dusk.service" ]; requires = [ "dusk.service" ]; };
  systemd.services.noon = service { after = [ "dawn.service" ]; requires = [ "dawn.service" ]; };
  systemd.services.dusk = service { after = [ "noon.service" ]; requires = [ "noon.service" ]; };
  systemd.timers.report = { wantedBy = [ "timers.target" ]; timerConfig.OnCalendar = "Mon..Fri 25:00"; };
  systemd.services.report = { script = "true"; serviceConfig.Type = "oneshot"; };
  systemd.services.parser = { wantedBy = [ "multi-user.target" ]; script = "sleep 25; kill -SEGV $$"; };
  system.activationScripts.agenixInstall.text = "echo 'age: no identity matched any of the recipients' >&2; false";
  systemd.services.mail = service { serviceConfig.LoadCredential = [ "smtp:/run/agenix/smtp" ]; };
"""
#: A server that cannot stay up, whose port stands in its configuration, and a port of nobody.
RESTARTS = """
  networking.nftables.enable = true;
  networking.firewall.allowedTCPPorts = [ 8085 ];
  systemd.services.web = service { serviceConfig = { ExecStart = "${pkgs.runtimeShell} ${pkgs.writeText "web.sh" "listen=8085; exit 3"}"; Restart = "always"; RestartSec = 1; }; startLimitIntervalSec = 0; };
"""
#: A port that is opened once everybody has looked.
LATE = """
  networking.nftables.enable = true;
  systemd.services.opener = { wantedBy = [ "multi-user.target" ]; path = [ pkgs.nftables ]; script = "sleep 30; nft insert rule inet nixos-fw input tcp dport 7000 accept"; };
"""
#: Sockets and a timer that could never start what they are for, and templates with lines that systemd
#: ignores.
DORMANT = """
  systemd.sockets.guestbook = { wantedBy = [ "sockets.target" ]; listenStreams = [ "/run/guestbook.sock" ]; socketConfig.Accept = true; };
  systemd.sockets.lazy = { wantedBy = [ "sockets.target" ]; listenStreams = [ "/run/lazy.sock" ]; };
  systemd.services.lazy.serviceConfig.ExecStart = "/nowhere/bin/lazyd";
  systemd.services.nightly = { startAt = "daily"; serviceConfig.ExecStart = "/nowhere/bin/nightly"; };
  systemd.services.hourly = { startAt = "hourly"; serviceConfig = { ExecStart = sleep; User = "nosuch"; }; };
  systemd.services.weekly = { startAt = "weekly"; requires = [ "network-onlin.target" ]; serviceConfig.ExecStart = sleep; };
  systemd.services."rooms@".serviceConfig = { ExecStart = sleep; TaskMax = 50; };
"""
#: A directive in the wrong section, two that order each other, a timer of a unit that is not there,
#: a service that runs out of its time, and a directory that the activation could not make.
TWO = """
  systemd.services.archive = service { serviceConfig.RequiresMountsFor = "/srv"; };
  systemd.services.left = service { before = [ "right.service" ]; after = [ "right.service" ]; wants = [ "right.service" ]; };
  systemd.services.right = service { };
  systemd.timers.renewal = { wantedBy = [ "timers.target" ]; timerConfig = { OnCalendar = "daily"; Unit = "renewl.service"; }; };
  systemd.services.renewal = { script = "true"; serviceConfig.Type = "oneshot"; };
  systemd.services.brief = service { serviceConfig.RuntimeMaxSec = 25; };
  system.activationScripts.folders.text = "mkdir /proc/folders/app 2>/dev/null || { echo \\"cannot make '/srv/app/data'\\" >&2; false; }";
  systemd.services.app = service { serviceConfig.WorkingDirectory = "/srv/app/data"; };
"""
#: Services that systemd cannot start, each for a reason of its own, and that it never starts.
UNABLE = """
  time.timeZone = "Europe/Berln";
  systemd.services.account = service { serviceConfig.User = "nosuch"; };
  systemd.services.settings = service { serviceConfig.EnvironmentFile = "/etc/settings.env"; };
  systemd.services.folder = service { serviceConfig.ReadWritePaths = [ "/var/lib/folder" ]; };
  systemd.services.place = service { serviceConfig.WorkingDirectory = "/srv/place"; };
  systemd.services.unwanted = { wantedBy = [ "multi-user.targt" ]; serviceConfig.ExecStart = sleep; };
  systemd.services.first = service { conflicts = [ "second.service" ]; };
  systemd.services.second = service { };
  boot.kernel.sysctl."net.ipv4.conf.all.rp_filter" = 1;
  systemd.services.tuner = { wantedBy = [ "multi-user.target" ]; script = "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter"; serviceConfig.Type = "oneshot"; };
  networking.firewall.allowedTCPPorts = [ 8080 ];
  systemd.services.inside = service { serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server --bind 127.0.0.1 8080"; };
  systemd.services.tool = service { script = "nosuchtool --now"; };
  systemd.services.wrong-kind = { wantedBy = [ "multi-user.service" ]; serviceConfig.ExecStart = sleep; };
  systemd.services.redirect = service { onFailure = [ "alarm.service" ]; after = [ "network-onlin.target" ]; serviceConfig = { Type = "oneshot"; RemainAfterExit = true; ExecStart = "${pkgs.coreutils}/bin/echo a > /run/a"; }; };
  systemd.services.exported = service { serviceConfig.EnvironmentFile = pkgs.writeText "env" "export TOKEN=abc\n"; };
  systemd.services.asserts = service { unitConfig.AssertPathExists = "/nowhere"; };
"""
#: The main service fails for want of a directory, or of a credential that nothing declares.
HOME = 'services.ollama = { enable = true; home = "/srv/models/ollama"; };'
GATE = """
  services.ollama.enable = true;
  systemd.services.ollama.serviceConfig.ExecStartPre = "${pkgs.coreutils}/bin/false";
"""
#: Open over IPv6 only, above a port, and sent on to a port that no rule opens.
OPEN = """
  networking.nftables.enable = true;
  networking.firewall.extraInputRules = ''
    meta nfproto ipv6 tcp dport 50000-50100 accept
    meta l4proto tcp th dport > 61000 accept
  '';
  networking.nftables.tables.engine = {
    family = "inet";
    content = "chain pre { type nat hook prerouting priority dstnat; tcp dport 62 redirect to :61100; }";
  };
  systemd.services.web = service { serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server 61100"; };
"""
#: Written by hand: a policy that accepts, and a last rule that does not.
BY_HAND = """
  networking.firewall.enable = false;
  networking.nftables.enable = true;
  networking.nftables.ruleset = ''
    table inet own {
      chain input {
        type filter hook input priority filter; policy accept;
        iifname lo accept
        ct state established,related accept
        meta l4proto { icmp, ipv6-icmp } accept
        tcp dport 22 accept
        drop
      }
    }
  '';
"""
FIREWALL = ("FW-001", "FW-003", "FW-004", "NET-006")
UNITS = ("BOOT-001", "BOOT-006", *(f"UNIT-{n:03}" for n in range(1, 8)), "UNIT-010", "SBX-D01")
OLLAMA = ("BOOT-001", "BOOT-004", *(f"OLL-{n:03}" for n in range(1, 7)))


def flake_of(tmp_path: Path, host: str) -> Path:
    """Write a flake of one host, ``it``, and return its folder."""
    flake = tmp_path / "flake"
    flake.mkdir()
    (flake / "flake.nix").write_text(FLAKE)
    (flake / "host.nix").write_text(f"{BASE}{host}\n}}\n")
    return flake


def judged(tmp_path: Path, host: str, controls: tuple[str, ...]) -> tuple[Any, str]:
    chosen = selected(tmp_path, *controls)
    _, report, printed = judge("it", tmp_path, *chosen, flake=flake_of(tmp_path, host))
    return report, printed


def findings(report: Any) -> dict[str, Any]:
    return {f["control"]: f for f in report["findings"]}


def causes(report: Any) -> list[str]:
    return [
        f["control"] for f in report["findings"] if f["outcome"] == "failed" and not f["caused_by"]
    ]


def test_one_host(tmp_path: Path) -> None:
    report, printed = judged(tmp_path, ONE + LATE, (*UNITS, "FW-003", "FW-010"))
    found = findings(report)
    assert "FW-003" in passed(report)
    assert "tcp 7000" in found["FW-010"]["reason"], printed
    assert {"BOOT-006", "UNIT-001", "UNIT-002", "UNIT-003", "UNIT-010"} <= failing(report), printed
    assert "report.timer: bad-setting" in found["UNIT-001"]["reason"]
    assert "SocketMdoe" in found["UNIT-002"]["reason"]
    assert "did you mean SocketMode?" in found["UNIT-002"]["reason"]
    assert any(name in found["UNIT-003"]["reason"] for name in ("dawn", "noon", "dusk"))
    assert "parser.service" in found["UNIT-010"]["reason"]
    # The secret that was not decrypted comes first, and the mail service is its echo.
    assert "agenixInstall (1)" in found["BOOT-006"]["reason"]
    assert "unit:mail.service" in found["BOOT-006"]["blames"]
    assert "secret:/run/agenix/smtp" in found["BOOT-006"]["blames"]
    assert found["BOOT-001"]["caused_by"] == ["BOOT-006"], printed


def test_another_host(tmp_path: Path) -> None:
    report, printed = judged(tmp_path, TWO + DORMANT, UNITS)
    found = findings(report)
    broken = {"BOOT-006", "UNIT-002", "UNIT-003", "UNIT-005", "UNIT-006", "UNIT-010"}
    assert broken <= failing(report), printed
    assert "guestbook.socket: starts guestbook@" in found["UNIT-006"]["reason"]
    assert "/nowhere/bin/lazyd" in found["UNIT-006"]["reason"]
    assert "/nowhere/bin/nightly" in found["UNIT-005"]["reason"]
    assert "its account nosuch is not there" in found["UNIT-005"]["reason"]
    assert "it requires network-onlin.target, which is not there" in found["UNIT-005"]["reason"]
    assert (
        'systemd.services."weekly".requires = lib.mkForce [ "network-online.target" ];'
        in found["UNIT-005"]["remedy"]
    )
    assert 'systemd.services."rooms@".serviceConfig.TasksMax' in found["UNIT-002"]["remedy"]
    assert "RequiresMountsFor" in found["UNIT-002"]["reason"]
    assert "left.service" in found["UNIT-003"]["reason"]
    assert "renewal.timer" in found["UNIT-005"]["reason"]
    assert "brief.service" in found["UNIT-010"]["reason"]
    assert "unit:app.service" in found["BOOT-006"]["blames"]
    assert found["BOOT-001"]["caused_by"] == ["BOOT-006"], printed


def test_each_reason_that_systemd_knows_is_told_with_what_mends_it(tmp_path: Path) -> None:
    report, printed = judged(
        tmp_path,
        UNABLE,
        (
            "BOOT-001",
            "UNIT-004",
            "UNIT-013",
            "UNIT-015",
            "UNIT-016",
            "GEN-011",
            "SYS-001",
            "FW-006",
        ),
    )
    found = findings(report)
    reason, remedy = found["BOOT-001"]["reason"], found["BOOT-001"]["remedy"]
    for why in (
        "account.service (its account nosuch is not there, and the host declares none)",
        "settings.service (its EnvironmentFile /etc/settings.env is not there)",
        "folder.service (/var/lib/folder, which its unit names, is not there)",
        "tool.service (it ended with exit status 127: no command nosuchtool in its PATH)",
        "place.service (it cannot enter its working directory /srv/place)",
    ):
        assert why in reason, printed
    for text in (
        'users.users."nosuch" = { isSystemUser = true; group = "nosuch"; };',
        'systemd.services."folder".serviceConfig.StateDirectory = "folder";',
        'systemd.tmpfiles.settings."place"."/srv/place".d = { mode = "0750"; user = "root"; };',
    ):
        assert text in remedy
    idle = found["UNIT-004"]["reason"]
    assert "unwanted.service: wanted by multi-user.targt, which is not there" in idle
    assert "wrong-kind.service: wanted by multi-user.service, which is not there" in idle
    assert "exported.service goes without 'export TOKEN='" in found["UNIT-013"]["reason"]
    assert "abc" not in found["UNIT-013"]["reason"]
    assert "redirect.service: ExecStart hands > to echo" in found["UNIT-015"]["reason"]
    named = found["UNIT-016"]["reason"]
    assert "OnFailure=alarm.service, which is not there" in named
    assert "(meant: network-online.target?)" in named
    assert "asserts.service: never started: what its unit asserts does not hold" in idle
    assert "conflicts with" in idle
    assert "written by tuner.service" in found["SYS-001"]["reason"]
    assert "boot.kernelModules" not in found["SYS-001"]["remedy"]
    assert "8080 (something listens there on the loopback only)" in found["FW-006"]["reason"]
    assert "time.timeZone" in found["GEN-011"]["remedy"]
    assert "localtime" not in found["GEN-011"]["remedy"].partition("#")[0]


@pytest.mark.parametrize("host", [HOME, GATE])
def test_a_main_service_that_failed_is_the_one_cause(host: str, tmp_path: Path) -> None:
    report, printed = judged(tmp_path, host, OLLAMA)
    assert causes(report) == ["BOOT-001"], printed
    assert "ollama.service" in findings(report)["BOOT-001"]["reason"]
    assert len(findings(report)["BOOT-001"]["explains"]) >= 2


def test_a_server_that_starts_over_for_ever_is_why_its_port_is_silent(tmp_path: Path) -> None:
    report, printed = judged(tmp_path, RESTARTS, ("BOOT-004", "FW-006"))
    found = findings(report)
    assert "8085 (web.service, which should listen there" in found["FW-006"]["reason"], printed
    assert found["FW-006"]["caused_by"] == ["BOOT-004"]
    (tmp_path / "more").mkdir()
    more = RESTARTS.replace("[ 8085 ]", "[ 8085 8086 ]")
    report, printed = judged(tmp_path / "more", more, ("BOOT-004", "FW-006"))
    # What nobody serves is a cause of its own.
    assert set(causes(report)) == {"BOOT-004", "FW-006"}, printed


def test_ways_in_that_no_option_declares(tmp_path: Path) -> None:
    report, printed = judged(tmp_path, OPEN, FIREWALL)
    found = findings(report)
    assert found["FW-001"]["outcome"] == "passed", printed
    assert found["FW-003"]["outcome"] == "failed", printed
    assert "50000-50100 over IPv6" in found["FW-003"]["reason"]
    assert "61001-65535" in found["FW-003"]["reason"]
    assert "tcp 62, sent on to" in found["FW-003"]["reason"]


def test_a_ruleset_of_the_hosts_own_is_judged_by_what_it_does(tmp_path: Path) -> None:
    report, printed = judged(tmp_path, BY_HAND, FIREWALL)
    found = findings(report)
    # It declares nothing that could be held against it, and is not called open or closed.
    for control in ("FW-001", "FW-003", "FW-004"):
        assert found[control]["outcome"] == "not-applicable", printed
        assert "written by hand" in found[control]["reason"]
    assert "checkReversePath" not in found["NET-006"]["remedy"]
    assert "FW-004" not in failing(report), printed


def test_a_mount_that_fails_is_named_with_what_mount_says(tmp_path: Path) -> None:
    host = 'fileSystems."/scratch" = { device = "tmpfs"; fsType = "tmpfs"; options = [ "sizee=1G" ]; };'
    report, printed = judged(tmp_path, host, ("BOOT-002", "UNIT-007"))
    found = findings(report)
    assert "not mounted: /scratch" in found["BOOT-002"]["reason"], printed
    assert "sizee" in found["BOOT-002"]["reason"]
    assert 'fileSystems."/scratch".options = [ "nofail" ];' in found["BOOT-002"]["remedy"]
    assert found["UNIT-007"]["caused_by"] == ["BOOT-002"]
