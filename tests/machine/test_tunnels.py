"""WireGuard between members of a cluster: what Nix reads of the three ways to declare it, what a
member's own modules make of test keys, and two members that meet.

With ``PYTEST_NIXOS_NIXPKGS`` the modules are nixpkgs' own. Two emulated guests boot when asked:
``PYTEST_NIXOS_VM_CLUSTER=1``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from msgspec.structs import replace

from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.nix.building.store import Nix
from pytest_nixos.nix.command.argv import NixSettings
from pytest_nixos.nix.command.refs import FlakeRef
from pytest_nixos.nix.config.tunnels import Endpoint, public_key_of
from pytest_nixos.nix.expression import Instrumentation
from pytest_nixos.nix.flake import Flake
from tests.machine.test_on_guest import EXAMPLES, OVERRIDES, run_on
from tests.machine.test_real_nixpkgs import NIXPKGS, OVERLAYS, PROGRAM

pytestmark = [
    pytest.mark.skipif(shutil.which("nix") is None, reason="needs Nix"),
    pytest.mark.skipif(not (NIXPKGS or OVERRIDES), reason="no nixpkgs (./dev test)"),
]
vms = pytest.mark.skipif(
    os.environ.get("PYTEST_NIXOS_VM_CLUSTER") != "1" or not OVERRIDES,
    reason="boots two emulated VMs: PYTEST_NIXOS_VM_CLUSTER=1",
)

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
THEIRS = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
TEST = "27s0OvaBBdHoJYkH9osZpjpgSOVNw+RaKfboT/Sfq0g="
OPTIONS = ("networking.wireguard.interfaces", "networking.wg-quick.interfaces")
NETDEVS = "systemd.network.netdevs"

HOSTS = """
{
  inputs.nixpkgs.url = "@NIXPKGS@";
  outputs = { self, nixpkgs }:
    let
      theirs = "@THEIRS@";
      host = name: more: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          {
            @OVERLAYS@
            networking.hostName = name;
            boot.loader.grub.device = "/dev/vda";
            fileSystems."/" = { device = "/dev/vda"; fsType = "ext4"; };
            system.stateVersion = "24.05";
          }
          more
        ];
      };
      # Releases up to 24.05 nest what a peer is.
      peer = settings: if nixpkgs.lib.versionOlder nixpkgs.lib.version "24.11" then { wireguardPeerConfig = settings; } else settings;
    in
    {
      nixosConfigurations.scripted = host "scripted" {
        networking.hosts."10.0.0.9" = [ "vpn.example.org" ];
        networking.wireguard.interfaces.wg0 = {
          ips = [ "10.100.0.1/24" "fd00::1/64" ];
          listenPort = 51820;
          privateKey = "@PRIVATE@";
          peers = [
            { publicKey = theirs; allowedIPs = [ "10.100.0.2/32" ]; endpoint = "vpn.example.org:51821"; presharedKey = "@PRIVATE@"; }
            { publicKey = "@PRIVATE@"; allowedIPs = [ "10.100.0.9/32" ]; }
          ];
        };
      };
      nixosConfigurations.quick = host "quick" {
        networking.wg-quick.interfaces.wg0 = {
          address = [ "10.100.0.2/24" ];
          privateKeyFile = "/etc/wg.key";
          peers = [ { publicKey = theirs; allowedIPs = [ "0.0.0.0/0" ]; endpoint = "[fd00::9]:51820"; presharedKeyFile = "/etc/wg.psk"; } ];
        };
      };
      nixosConfigurations.networkd = host "networkd" {
        networking.useNetworkd = true;
        systemd.network = {
          enable = true;
          netdevs."10-wg" = {
            netdevConfig = { Kind = "wireguard"; Name = "wg0"; };
            wireguardConfig = { PrivateKeyFile = "/etc/wg.key"; ListenPort = 51820; };
            wireguardPeers = [ (peer { PublicKey = theirs; AllowedIPs = [ "10.100.0.1/32" ]; PresharedKeyFile = "/etc/wg.psk"; Endpoint = "10.0.0.9:51820"; }) ];
          };
          netdevs."20-br" = { netdevConfig = { Kind = "bridge"; Name = "br0"; }; };
          networks."30-wg" = { matchConfig.Name = "wg0"; address = [ "10.100.0.3/24" ]; };
        };
      };
    };
}
"""


def table(tree: str) -> dict[str, object]:
    peer = {"key": TEST, "preshared": "/run/test.psk"}
    interface = {"file": "/run/test.key", "peers": {THEIRS: peer}}
    return {
        "trees": [tree],
        "interfaces": {"wg0": interface},
        "hosts": {"10.0.0.7": ["nobody.example.org"]},
    }


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Flake:
    folder = tmp_path_factory.mktemp("tunnels")
    text = HOSTS.replace("@THEIRS@", THEIRS).replace("@PRIVATE@", PRIVATE)
    text = text.replace(
        "@NIXPKGS@", f"path:{Path(NIXPKGS).resolve()}" if NIXPKGS else "github:NixOS/nixpkgs"
    )
    own = f"nixpkgs.overlays = {OVERLAYS};" if NIXPKGS else ""
    (folder / "flake.nix").write_text(text.replace("@OVERLAYS@", own))
    settings = NixSettings(
        program=PROGRAM, override_inputs=() if NIXPKGS else tuple(OVERRIDES.items())
    )
    if NIXPKGS:
        # Without a lock file each command would copy the whole tree again.
        argv = [PROGRAM, "--extra-experimental-features", "nix-command flakes", "flake", "lock"]
        subprocess.run([*argv, f"path:{folder}"], check=True)
    trees = {"scripted": OPTIONS[0], "quick": OPTIONS[1], "networkd": NETDEVS}
    return Flake(
        FlakeRef(f"path:{folder}"),
        Nix(runner=SubprocessRunner(), settings=settings),
        Instrumentation(
            channel_script="s", tunnels={name: table(tree) for name, tree in trees.items()}
        ),
    )


def test_units_of_its_own(flake: Flake) -> None:
    host = flake.evaluate("scripted", option_paths=(OPTIONS[0], "networking.hosts"))
    (wg0,) = host.tunnels
    assert (wg0.tree, wg0.name, wg0.port) == (OPTIONS[0], "wg0", 51820)
    assert wg0.ips == (ip_address("10.100.0.1"), ip_address("fd00::1"))
    assert (wg0.has_inline_key, wg0.key_file) == (True, "")
    assert wg0.inline_public == public_key_of(PRIVATE)
    assert PRIVATE not in repr(replace(wg0, peers=()))
    peer = wg0.peers[0]
    assert (peer.public_key, peer.has_inline_preshared) == (THEIRS, True)
    assert peer.allowed == (ip_interface("10.100.0.2/32"),)
    assert peer.endpoint == Endpoint(host="vpn.example.org", port=51821)
    assert peer.found == (ip_address("10.0.0.9"),)

    before, after = (value["wg0"] for value in host.changed[OPTIONS[0]])
    assert (after["privateKey"], after["privateKeyFile"]) == (None, "/run/test.key")
    ours, stranger = after["peers"]
    assert (ours["publicKey"], ours["presharedKey"]) == (TEST, None)
    assert ours["presharedKeyFile"] == "/run/test.psk"
    # All else is as it was, the unit's name too.
    assert stranger == before["peers"][1]
    assert {n: v for n, v in ours.items() if v != before["peers"][0][n]}.keys() == {
        "publicKey",
        "presharedKey",
        "presharedKeyFile",
    }
    hosts = host.changed["networking.hosts"][1]
    assert (hosts["10.0.0.7"], hosts["10.0.0.9"]) == (["nobody.example.org"], ["vpn.example.org"])
    assert any("wireguard-wg0-peer-xTIBA5" in option for option in host.changed)


def test_wg_quick(flake: Flake) -> None:
    host = flake.evaluate("quick", option_paths=(OPTIONS[1],))
    (wg0,) = host.tunnels
    assert wg0.files == ("/etc/wg.key", "/etc/wg.psk")
    assert wg0.peers[0].endpoint == Endpoint(host="fd00::9", port=51820)
    assert wg0.peers[0].allows(ip_address("192.0.2.1"))
    after = host.changed[OPTIONS[1]][1]["wg0"]
    assert after["privateKeyFile"] == "/run/test.key"
    assert after["peers"][0]["publicKey"] == TEST


def test_networkd(flake: Flake) -> None:
    host = flake.evaluate("networkd", option_paths=(NETDEVS,))
    (wg0,) = host.tunnels
    assert wg0.is_networkd
    assert wg0.ips == (ip_address("10.100.0.3"),)
    assert (wg0.has_inline_key, wg0.key_file) == (False, "/etc/wg.key")
    assert wg0.peers[0].endpoint == Endpoint(host="10.0.0.9", port=51820)
    uses = {use.path: use.kind for use in host.secrets.uses}
    assert uses["/etc/wg.psk"] == "wireguard-preshared-key"

    before, after = host.changed[NETDEVS]
    settings = after["10-wg"]["wireguardConfig"]
    assert settings == {"PrivateKeyFile": "/run/test.key", "ListenPort": 51820}
    (peer,) = after["10-wg"]["wireguardPeers"]
    peer = peer.get("wireguardPeerConfig") or peer
    assert (peer["PublicKey"], peer["PresharedKeyFile"]) == (TEST, "/run/test.psk")
    assert after["20-br"] == before["20-br"]


MEMBERS = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
  outputs = { self, nixpkgs }:
    let
      # Nobody holds their private halves.
      keys = {
        hub = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=";
        quick = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=";
        phone = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM=";
        # Of the one that stands in the config.
        units = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
      };
      host = name: number: more: nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ ./base.nix more {
          networking.hostName = name;
          networking.useDHCP = false;
          networking.interfaces.eth0.ipv4.addresses = [ { address = "192.168.7.${toString number}"; prefixLength = 24; } ];
          networking.firewall.allowedUDPPorts = [ 51820 ];
        } ];
      };
      hub = { publicKey = keys.hub; allowedIPs = [ "10.100.0.0/24" ]; endpoint = "vpn.example.org:51820"; };
    in
    {
      nixosConfigurations.hub = host "hub" 1 {
        systemd.network = {
          enable = true;
          netdevs."10-wg0" = {
            netdevConfig = { Kind = "wireguard"; Name = "wg0"; };
            wireguardConfig = { PrivateKeyFile = "/etc/wg.key"; ListenPort = 51820; };
            wireguardPeers = [
              { PublicKey = keys.units; AllowedIPs = [ "10.100.0.2/32" ]; PresharedKeyFile = "/etc/wg-units.psk"; }
              { PublicKey = keys.quick; AllowedIPs = [ "10.100.0.3/32" ]; }
              { PublicKey = keys.phone; AllowedIPs = [ "10.100.0.9/32" ]; }
            ];
          };
          networks."20-wg0" = { matchConfig.Name = "wg0"; address = [ "10.100.0.1/24" ]; };
        };
      };
      nixosConfigurations.units = host "units" 2 {
        networking.wireguard.interfaces.wg0 = {
          ips = [ "10.100.0.2/24" ];
          privateKey = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
          peers = [ (hub // { presharedKey = "rVXs/Ni9tu3oDBLS4hOyAUAa1qTWVA3loR8eL20os3I="; }) ];
        };
      };
      nixosConfigurations.quick = host "quick" 3 {
        networking.wg-quick.interfaces.wg0 = {
          address = [ "10.100.0.3/24" ];
          privateKeyFile = "/var/lib/wg.key";
          peers = [ hub ];
        };
      };
    };
}
"""


@vms
def test_on_members(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "base.nix").write_text((EXAMPLES / "modules" / "base.nix").read_text())
    (own / "flake.nix").write_text(MEMBERS)
    run_on(f"{own}#hub", tmp_path, "guest_tunnels.py", cwd=tmp_path)
