"""A container of a plain host is judged, each finding's own remedy is pasted into its
configuration, and the finding is gone.

What the offline stand-in has no option for is proven on a real nixpkgs, by evaluation
(``test_on_nixpkgs``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.standards.load import load_catalogue

OVERRIDES: dict[str, str] = json.loads(os.environ.get("PYTEST_NIXOS_TEST_OVERRIDES", "{}"))
LIMIT_S = 1200
CATALOGUE = load_catalogue()

pytestmark = pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test")

FLAKE = """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.it = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ./host.nix ./remedies.nix ];
    };
  };
}
"""
HOST = """{ pkgs, ... }:
{
  system.stateVersion = "24.05";
  networking.hostName = "it";
  fileSystems."/" = { device = "/dev/disk/by-label/root"; fsType = "ext4"; };
  boot.loader.grub.device = "/dev/vda";
  systemd.services.app = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
  };
  services.openssh.enable = true;
  users.users.alice.isNormalUser = true;
}
"""
#: Remedies that are not pasted: why.
LEFT_OUT = {
    "SBX-001": "says at once what SBX-003 and others say one by one",
    "NET-007": "is for iptables, and NET-003's remedy turns nftables on",
    "NET-015": "leaves the container without the address by which it is reached",
    "AUD-023": "needs another machine",
    "AUTH-011": "the stand-in has no PAM rules",
    "AUTH-012": "the stand-in has no PAM rules",
    "AUTH-015": "the stand-in has no PAM rules",
    "AUTH-026": "the stand-in has no PAM rules",
    "AUTH-014": "the stand-in has no security.loginDefs",
    "AUTH-018": "the stand-in writes no interactive shell's start",
}
#: Findings that were there and are gone.
MENDED = 70


def run(folder: Path, name: str) -> Mapping[str, Mapping[str, Any]]:
    report = folder / f"{name}.json"
    overrides = [w for key, ref in OVERRIDES.items() for w in ("--nixos-override-input", key, ref)]
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--nixos-flake", f"{folder}#it",
            *overrides, "--nixos-backend", "container", "--nixos-profile", "hardened",
            "--nixos-report", f"json:{report}",
        ],
        cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert report.exists(), done.stdout + done.stderr
    # A check that switches or waits depends on how busy this machine is; what is data does not.
    return {
        f["control"]: f
        for f in json.loads(report.read_text())["findings"]
        if CATALOGUE.control(f["control"]).is_data
    }


def test_pasted_remedies_mend_their_findings_and_bring_none(tmp_path: Path) -> None:
    (tmp_path / "flake.nix").write_text(FLAKE)
    (tmp_path / "host.nix").write_text(HOST)
    (tmp_path / "remedies.nix").write_text("{ }")
    before = run(tmp_path, "before")
    failed = {c: f for c, f in before.items() if f["outcome"] == "failed"}
    pasted = {
        control: finding["remedy"]
        for control, finding in failed.items()
        if control not in LEFT_OUT and re.search(r"^[^#\s]", finding["remedy"], re.MULTILINE)
        and not finding["remedy"].startswith("# Goes into")
    }  # fmt: skip
    modules = "".join(
        f"({{ config, lib, pkgs, ... }}: {{\n{text}\n}})\n" for text in pasted.values()
    )
    (tmp_path / "remedies.nix").write_text(f"{{ imports = [\n{modules}]; }}\n")
    after = run(tmp_path, "after")
    mended = {c for c in pasted if after[c]["outcome"] == "passed"}
    # The release that the stand-in is of, and the seal of a journal, are beyond a module.
    assert pasted.keys() - mended <= {"AUD-022"}
    assert len(mended) >= MENDED
    new = {c for c, f in after.items() if f["outcome"] == "failed"} - failed.keys()
    assert new == set()
    assert all("<" not in line or line.lstrip().startswith("#") for t in pasted.values() for line in t.splitlines())  # fmt: skip
    assert 'systemd.services."app".serviceConfig.PrivateTmp = true;' in pasted["SBX-005"]
