"""Hosts of the real sops-nix and agenix on a real nixpkgs: what is forced in their machines fits
their options, and their activation comes after the test secrets; nothing is built.

``PYTEST_NIXOS_SOPS_NIX`` and ``PYTEST_NIXOS_AGENIX`` name checkouts of the two, of nixpkgs' time (the
agenix of 2026 reads options that 24.05 lacks), beside what ``test_real_nixpkgs.py`` needs;
``PYTEST_NIXOS_AGENIX_REKEY`` names one of agenix-rekey.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.flake import Flake
from pytest_nixos.test_secrets.archive import make_secrets
from tests.machine.test_real_nixpkgs import INSTRUMENTATION, NIX, NIXPKGS, OVERLAYS, PROGRAM

SOPS_NIX = os.environ.get("PYTEST_NIXOS_SOPS_NIX", "")
AGENIX = os.environ.get("PYTEST_NIXOS_AGENIX", "")
AGENIX_REKEY = os.environ.get("PYTEST_NIXOS_AGENIX_REKEY", "")

pytestmark = [
    pytest.mark.skipif(not NIXPKGS, reason="PYTEST_NIXOS_NIXPKGS names no nixpkgs tree"),
    pytest.mark.skipif(not shutil.which(PROGRAM), reason=f"no such program: {PROGRAM}"),
    pytest.mark.skipif(
        not (SOPS_NIX and AGENIX), reason="PYTEST_NIXOS_SOPS_NIX or _AGENIX names no checkout"
    ),
]

# The newest sops-nix wants a newer Go than an old nixpkgs has: its program is not built here.
HOSTS = """
{
  inputs.nixpkgs.url = "path:@NIXPKGS@";
  inputs.sops-nix = { url = "path:@SOPS_NIX@"; flake = false; };
  inputs.agenix = { url = "path:@AGENIX@"; flake = false; };
  inputs.agenix-rekey = { url = "path:@AGENIX_REKEY@"; flake = false; };
  outputs = { self, nixpkgs, sops-nix, agenix, agenix-rekey }: let
    base = { pkgs, ... }: {
      nixpkgs.overlays = @OVERLAYS@;
      system.stateVersion = "24.05";
      fileSystems."/" = { device = "/dev/vda1"; fsType = "ext4"; };
      boot.loader.grub.device = "/dev/vda";
      services.openssh.enable = true;
    };
    host = module: nixpkgs.lib.nixosSystem { system = "x86_64-linux"; modules = [ base module ]; };
    assets = sops-nix + "/pkgs/sops-install-secrets/test-assets";
  in {
    nixosConfigurations.sops = host ({ config, pkgs, ... }: {
      imports = [ (sops-nix + "/modules/sops") ];
      sops.package = pkgs.emptyDirectory;
      sops.defaultSopsFile = assets + "/secrets.yaml";
      sops.secrets.test_key = { restartUnits = [ "sshd.service" ]; owner = "nobody"; };
      sops.secrets."nested/test/file".neededForUsers = true;
      sops.secrets.env = { format = "dotenv"; sopsFile = assets + "/secrets.env"; };
      sops.templates."x.conf".content = "a=${config.sops.placeholder.test_key}";
      users.users.alice = { isNormalUser = true; hashedPasswordFile = config.sops.secrets."nested/test/file".path; };
    });
    nixosConfigurations.age = host ({ config, ... }: {
      imports = [ (agenix + "/modules/age.nix") ];
      age.secrets.token = { file = agenix + "/example/secret1.age"; owner = "nobody"; };
      age.secrets.moved = { file = agenix + "/example/secret1.age"; symlink = false; path = "/var/lib/x"; };
    });
    # Its secrets are a derivation that no builder can make: it wants the owner's master key.
    nixosConfigurations.rekey = host ({ config, ... }: {
      imports = [ (agenix + "/modules/age.nix") (import (agenix-rekey + "/modules/agenix-rekey.nix") nixpkgs) ];
      age.rekey.storageMode = "derivation";
      age.rekey.hostPubkey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPFyE2nbEVN8c4j9PJtdU8G0PNmFyCXyVGdQUqVbGwQr";
      age.rekey.masterIdentities = [ "/home/me/master.pub" ];
      age.secrets.alice.rekeyFile = agenix + "/example/secret1.age";
      users.users.alice = { isNormalUser = true; hashedPasswordFile = config.age.secrets.alice.path; };
    });
  };
}
"""
ASKED = ("sops.secrets", "sops.age", "age.secrets", "age.identityPaths", "system.activationScripts")


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    folder = tmp_path_factory.mktemp("real-secrets")
    text = HOSTS.replace("@OVERLAYS@", OVERLAYS)
    inputs = {"NIXPKGS": NIXPKGS, "SOPS_NIX": SOPS_NIX, "AGENIX": AGENIX}
    # One that is not there is never looked into.
    inputs["AGENIX_REKEY"] = AGENIX_REKEY or AGENIX
    for name, path in inputs.items():
        text = text.replace(f"@{name}@", str(Path(path).resolve()))
    (folder / "flake.nix").write_text(text)
    subprocess.run(
        [PROGRAM, "--extra-experimental-features", "nix-command flakes", "flake", "lock", f"path:{folder}"],
        check=True,
    )  # fmt: skip
    return Flake(FlakeRef(f"path:{folder}"), NIX, INSTRUMENTATION)


def evaluated(flake: Flake, name: str, backend: str) -> HostConfig:
    return flake.evaluate(name, backend=backend, option_paths=ASKED)


def in_machine(host: HostConfig, path: str) -> Any:
    """Return an option's value in the machine."""
    return host.changed[path][1] if path in host.changed else host.option(path).value


def guest_file(name: str) -> str:
    return f"/run/pytest-nixos-secrets/{hashlib.sha256(name.encode()).hexdigest()[:32]}"


@pytest.mark.parametrize("backend", ["vm", "container"])
def test_sops_nix_finds_our_files_and_key(flake: Flake, backend: str) -> None:
    host = evaluated(flake, "sops", backend)
    assert host.derivation.endswith(".drv")
    secrets = in_machine(host, "sops.secrets")
    for name in ("test_key", "nested/test/file", "env"):
        assert secrets[name]["sopsFile"] == guest_file(f"sops:{name}")
        assert secrets[name]["sopsFileHash"] == ""
    assert in_machine(host, "sops.age")["keyFile"] == "/run/pytest-nixos-secrets/key"
    assert in_machine(host, "sops.age")["sshKeyPaths"] == []
    snippets = in_machine(host, "system.activationScripts")
    assert "pytestNixosSecrets" in snippets["setupSecretsForUsers"]["deps"]
    assert "pytestNixosSecrets" in snippets["users"]["deps"]
    script = snippets["script"]
    assert script.index("script snippet pytestNixosSecrets:") < script.index(
        "setupSecretsForUsers:"
    )
    assert script.index("snippet users:") < script.index("snippet setupSecrets:")
    assert "modprobe" in snippets["pytestNixosSecrets"]["text"]


@pytest.mark.parametrize("backend", ["vm", "container"])
def test_agenix_finds_our_files_and_key(flake: Flake, backend: str) -> None:
    host = evaluated(flake, "age", backend)
    assert host.derivation.endswith(".drv")
    secrets = in_machine(host, "age.secrets")
    assert {name: s["file"] for name, s in secrets.items()} == {
        name: guest_file(f"age:{name}") for name in ("token", "moved")
    }
    assert in_machine(host, "age.identityPaths") == ["/run/pytest-nixos-secrets/key"]
    snippets = in_machine(host, "system.activationScripts")
    script = snippets["script"]
    assert script.index("snippet pytestNixosSecrets:") < script.index("snippet agenixInstall:")
    mounts = snippets["agenixNewGeneration"]["text"]
    assert ("mount -t tmpfs" in mounts) == (backend == "container")
    assert ("mount -t ramfs" in mounts) == (backend == "vm")


@pytest.mark.skipif(not AGENIX_REKEY, reason="PYTEST_NIXOS_AGENIX_REKEY names no checkout")
def test_agenix_rekey_needs_no_rekeyed_file(flake: Flake) -> None:
    host = evaluated(flake, "rekey", "vm")
    assert in_machine(host, "age.secrets")["alice"]["file"] == guest_file("age:alice")
    assert str(make_secrets(host).values["age:alice"]).startswith("$6$")
    needed = subprocess.run(
        ["nix-store", "--query", "--requisites", host.derivation],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(needed.stdout.splitlines()) > 100
    assert "rekey" not in needed.stdout


def test_what_they_declare_gets_values(flake: Flake) -> None:
    sops, age = evaluated(flake, "sops", "vm"), evaluated(flake, "age", "vm")
    made = make_secrets(sops)
    assert made.values["sops:test_key"].keys() == {"test_key"}
    # As long as the real one, which is "test_value".
    assert len(made.values["sops:test_key"]["test_key"]) == 10
    assert made.values["sops:nested/test/file"]["nested"]["test"]["file"].startswith("$6$")
    assert "hello" in made.values["sops:env"]
    test_key = next(s for s in sops.secrets.secrets if s.name == "test_key")
    assert (test_key.owner, test_key.group, test_key.mode) == ("nobody", "nogroup", "0400")
    (template,) = sops.secrets.templates
    # Up to the summer of 2024 they lay beside the secrets.
    assert template.path in ("/run/secrets/rendered/x.conf", "/run/secrets-rendered/x.conf")
    assert make_secrets(age).told == "2 secrets have test values"
