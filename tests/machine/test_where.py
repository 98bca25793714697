"""Where options are set, as a module system tells it: nixpkgs' own where ``PYTEST_NIXOS_NIXPKGS`` names
a tree, else that of the offline stand-in.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.places import Places
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.nix.where import Whereabouts
from tests.support.nixpkgs_tree import NEEDS_NIXPKGS, NIXPKGS, OVERRIDES, PROGRAM

pytestmark = NEEDS_NIXPKGS

FILES = {
    "flake.nix": """{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-24.05";
  outputs = { self, nixpkgs }: {
    nixosConfigurations.web = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [
        ./hosts/web.nix
        ./modules
        ({ lib, ... }: {
          boot.kernel.sysctl."kernel.dmesg_restrict" = 0;
          networking.hostName = lib.mkForce "web";
        })
      ];
    };
    nixosConfigurations.db = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ ./hosts/web.nix { networking.hostName = "db"; } ];
    };
  };
}
""",
    "hosts/web.nix": """{ lib, ... }:
{
  boot.loader.grub.device = "nodev";
  fileSystems."/" = { device = "/dev/vda"; fsType = "ext4"; };
  system.stateVersion = "24.05";
  services.openssh = {
    enable = true;
    settings = lib.mkIf true {
      PermitRootLogin = lib.mkForce "yes";
    };
  };
  systemd.services.report = {
    wantedBy = [ "multi-user.target" ];
    script = "true";
    serviceConfig.ProtectHome = false;
  };
}
""",
    "modules/default.nix": """{ lib, config, ... }:
let cfg = config.my; in {
  options.my.enable = lib.mkEnableOption "it" // { default = true; };
  config = lib.mkIf cfg.enable (lib.mkMerge [
    { networking.firewall.allowedTCPPorts = [ 23 ]; }
    { boot.tmp.cleanOnBoot = lib.mkDefault true; }
  ]);
}
""",
}
ROOT_LOGIN = "services.openssh.settings.PermitRootLogin"
DMESG = 'boot.kernel.sysctl."kernel.dmesg_restrict"'
ASKED = (
    ROOT_LOGIN,
    DMESG,
    "networking.hostName",
    "networking.firewall.allowedTCPPorts",
    "networking.firewall.enable",
    "boot.tmp.cleanOnBoot",
    "no.such.option",
    "systemd.services.*",
    "services.*",
)


@pytest.fixture(scope="module")
def whereabouts(tmp_path_factory: pytest.TempPathFactory) -> Whereabouts:
    folder = tmp_path_factory.mktemp("where")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    inputs = {"nixpkgs": f"path:{Path(NIXPKGS).resolve()}"} if NIXPKGS else OVERRIDES
    settings = NixSettings(program=PROGRAM, override_inputs=tuple(inputs.items()))
    nix = Nix(runner=SubprocessRunner(), settings=settings)
    flake = Flakes(nix, Instrumentation(channel_script="x")).of(FlakeRef(f"path:{folder}"))
    host = flake.evaluate("web", where=ASKED)
    return Whereabouts(host, trees=Places.of(flake.metadata), root=flake.root)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (ROOT_LOGIN, f"hosts/web.nix:9 sets {ROOT_LOGIN}, by mkForce"),
        (DMESG, f"flake.nix:10 sets {DMESG}"),
        ("networking.hostName", "flake.nix:11 sets networking.hostName, by mkForce"),
        (
            "networking.firewall.allowedTCPPorts",
            "modules/default.nix:5 sets networking.firewall.allowedTCPPorts",
        ),
        ("boot.tmp.cleanOnBoot", "modules/default.nix:6 sets boot.tmp.cleanOnBoot, by mkDefault"),
    ],
)
def test_option_is_told_with_the_line_that_sets_it(
    whereabouts: Whereabouts, option: str, told: str
) -> None:
    assert whereabouts.of_option(option)[0].words == told


def test_default_is_told_with_the_module_of_nixpkgs(whereabouts: Whereabouts) -> None:
    (place,) = whereabouts.of_option("networking.firewall.enable")
    assert place.words.startswith(
        "networking.firewall.enable is not set; the default comes from nixpkgs/nixos/modules/"
    )
    assert place.line is not None


def test_port_that_a_service_opens_is_told_behind_the_users_own(whereabouts: Whereabouts) -> None:
    own, *others = whereabouts.of_option("networking.firewall.allowedTCPPorts")
    assert own.own and others and all(place.source == "nixpkgs" for place in others)


def test_unit_is_told_with_what_enables_it(whereabouts: Whereabouts) -> None:
    (place,) = whereabouts.of_member("systemd.services", "report")
    assert place.spot == "hosts/web.nix:12"
    (key,) = whereabouts.of_member("systemd.services", "report", ("serviceConfig", "ProtectHome"))
    assert key.spot == "hosts/web.nix:15"
    assert [p.spot for p in whereabouts.of_member("services", "openssh")] == ["hosts/web.nix:7"]


def test_option_that_does_not_exist_has_no_place(whereabouts: Whereabouts) -> None:
    assert whereabouts.of_option("no.such.option") == ()


def test_host_has_a_place(whereabouts: Whereabouts) -> None:
    assert whereabouts.of_host is not None
    assert whereabouts.of_host.spot == "flake.nix:4"
