"""Checks that try things out, for real: the good hosts hold, their bad twins fail exactly what
they name.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machine.test_example_flake import EXAMPLE, OVERRIDES, failing, judge, passed

PROFILE = """\
profile = "clusters"
title = "Clusters"
description = "Checks that try things out."
[select]
controls = {controls}
"""

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]


def selected(tmp_path: Path, *controls: str) -> tuple[str, ...]:
    profiles = tmp_path / "catalogue/profiles"
    profiles.mkdir(parents=True)
    (profiles / "clusters.toml").write_text(PROFILE.format(controls=list(controls)))
    return ("--nixos-catalogue", str(tmp_path / "catalogue"), "--nixos-profile", "clusters")


def test_cluster_forms_and_survives(tmp_path: Path) -> None:
    controls = ("NATS-002", "NATS-009")
    _, report, printed = judge("nats-1", tmp_path, *selected(tmp_path, *controls))
    assert failing(report) == set(), printed
    assert passed(report) == set(controls), printed


def test_cluster_that_never_forms(tmp_path: Path) -> None:
    assert "# breaks: NATS-002" in (EXAMPLE / "hosts/nats-bad-1.nix").read_text()
    _, report, printed = judge("nats-bad-1", tmp_path, *selected(tmp_path, "NATS-002"))
    assert failing(report) == {"NATS-002"}, printed
    (finding,) = report["findings"]
    assert finding["observed"] == {"nats-bad-1": [], "nats-bad-2": []}, printed


@pytest.mark.parametrize(("host", "outcome"), [("nats-tls", "passed"), ("nats-tls-bad", "failed")])
def test_client_without_certificate(host: str, outcome: str, tmp_path: Path) -> None:
    _, report, printed = judge(host, tmp_path, *selected(tmp_path, "TLS-005"))
    (finding,) = report["findings"]
    assert finding["outcome"] == outcome, printed
    assert ("CERTIFICATE" in str(finding["observed"])) is (outcome == "passed")


def test_tiers_and_speed_of_a_container(tmp_path: Path) -> None:
    _, report, printed = judge("tiers", tmp_path, *selected(tmp_path, "NET-018", "LLM-006"))
    assert passed(report) == {"NET-018", "LLM-006"}, printed


def test_tiers_and_speed_of_the_bad_twin(tmp_path: Path) -> None:
    _, report, printed = judge("tiers-bad", tmp_path, *selected(tmp_path, "NET-018", "LLM-006"))
    assert failing(report) == {"NET-018", "LLM-006"}, printed


TWO_NETWORKS = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.it = nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ ./host.nix ]; };
  };
}
"""
ON_TWO_NETWORKS = """
{ pkgs, ... }:
let
  listens = port: {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -m http.server ${toString port}";
  };
in
{
  boot.isContainer = true;
  system.stateVersion = "25.11";
  networking.hostName = "it";
  networking.interfaces.eth1.ipv4.addresses = [ { address = "192.0.2.1"; prefixLength = 24; } ];
  networking.nftables.enable = true;
  networking.firewall.interfaces.eth1.allowedTCPPorts = [ 8081 ];
  networking.firewall.extraInputRules = ''iifname "eth1" tcp dport 8082 accept'';
  systemd.services.declared = listens 8081;
  systemd.services.smuggled = listens 8082;
  systemd.services.closed = listens 8083;
}
"""


def test_each_network_of_a_container_has_a_stranger(tmp_path: Path) -> None:
    folder = tmp_path / "flake"
    folder.mkdir()
    (folder / "flake.nix").write_text(TWO_NETWORKS)
    (folder / "host.nix").write_text(ON_TWO_NETWORKS)
    controls = ("FW-003", "FW-004", "FW-009", "NET-018")
    _, report, printed = judge(
        "it", tmp_path, *selected(tmp_path, *controls), "--nixos-backend", "container", flake=folder
    )
    found = {f["control"]: f for f in report["findings"]}
    assert failing(report) == {"FW-003", "FW-004"}, printed
    assert passed(report) == {"FW-009", "NET-018"}, printed
    assert "tcp 8082 on eth1" in found["FW-003"]["reason"]
    reachable = found["FW-004"]["observed"]["reachable and not declared"]
    assert {where: ports for where, ports in reachable.items() if ports} == {"eth1, IPv4": [8082]}
    seen = found["FW-009"]["observed"]["seen"]
    answers = {
        where.partition(",")[0]: look["tcp ports that answer"]
        for where, look in seen.items()
        if "IPv4" in where
    }
    assert answers == {"eth0": [], "eth1": [8081, 8082]}
    # What is declared for eth1 is asked about on the other network only.
    assert {w.partition(",")[0] for w, p in found["NET-018"]["observed"].items() if p} == {"eth0"}


def test_template_that_is_no_archive(tmp_path: Path) -> None:
    _, report, printed = judge("lxc-host-bad", tmp_path, *selected(tmp_path, "LXC-001"))
    assert failing(report) == {"LXC-001"}, printed


@pytest.mark.parametrize(("host", "outcome"), [("nested", "passed"), ("nested-bad", "failed")])
def test_container_on_a_host(host: str, outcome: str, tmp_path: Path) -> None:
    # In a container with user ids of its own this is refused.
    allowed = ("--nixos-container-root-is-machine-root", *selected(tmp_path, "CTR-011"))
    _, report, printed = judge(host, tmp_path, *allowed)
    (finding,) = report["findings"]
    assert finding["outcome"] == outcome, printed


UNITS = ("BOOT-006", "SBX-D01", *(f"UNIT-{n:03}" for n in range(1, 11)), "UNIT-013")


def test_units_that_are_well(tmp_path: Path) -> None:
    _, report, printed = judge("units-good", tmp_path, *selected(tmp_path, *UNITS))
    assert failing(report) == set(), printed
    # A container has no file system table of its own.
    assert passed(report) == {*UNITS} - {"UNIT-007"}, printed


def test_units_that_systemd_does_not_take_as_written(tmp_path: Path) -> None:
    _, report, printed = judge("units-bad", tmp_path, *selected(tmp_path, *UNITS))
    assert failing(report) == {*UNITS} - {"UNIT-007"}, printed
    reasons = {finding["control"]: finding["reason"] for finding in report["findings"]}
    assert "tidy.timer: bad-setting" in reasons["UNIT-001"]
    assert "did you mean ProtectSystem?" in reasons["UNIT-002"]
    assert "chicken.service" in reasons["UNIT-004"]
    assert "elsewhere" not in reasons["UNIT-004"]
    assert "brief" not in reasons["UNIT-004"]
    assert "fleeting.service: failed" in reasons["UNIT-010"]
    assert "careless (1)" in reasons["BOOT-006"]
