"""Which network cards a config speaks of, as Nix finds them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import pytest

from pytest_nixos.nix.expression import expression_sources

pytestmark = pytest.mark.skipif(shutil.which("nix") is None, reason="needs Nix")

SCRIPTED = """{
  networking.interfaces.enp3s0 = { name = "enp3s0"; ipv4.addresses = [ { address = "10.0.0.1"; prefixLength = 24; } ]; };
  networking.interfaces.br0 = { name = "br0"; ipv4.addresses = [ { address = "10.1.0.1"; prefixLength = 24; } ]; };
  networking.interfaces.office = { name = "office"; ipv6.addresses = [ { address = "fd00::1"; prefixLength = 64; } ]; };
  networking.interfaces.tun9 = { name = "tun9"; virtual = true; };
  networking.interfaces.wlp2s0 = { name = "wlp2s0"; };
  networking.bridges.br0.interfaces = [ "eno1" ];
  networking.interfaces.side = { name = "side"; ipv4.addresses = [ { address = "10.2.0.1"; prefixLength = 24; } ]; };
  networking.ipvlans.side = { interface = "enp3s0"; };
  networking.vlans.office = { id = 7; interface = "enp3s0"; };
  networking.wireguard.interfaces.wg0 = { };
}"""
NETWORKD = """{
  systemd.network = {
    links."10-lan" = { matchConfig.PermanentMACAddress = "AA:BB:CC:00:11:22"; linkConfig = { Name = "lan0"; MTUBytes = "9000"; }; };
    netdevs."20-vlan5" = { netdevConfig = { Kind = "vlan"; Name = "vlan5"; }; vlanConfig.Id = 5; };
    netdevs."20-lost" = { netdevConfig = { Kind = "vlan"; Name = "lost"; }; vlanConfig.Id = 6; };
    networks."30-lan" = { matchConfig.Name = "lan0"; address = [ "192.168.1.2/24" ]; vlan = [ "vlan5" ]; };
    networks."40-vlan5" = { matchConfig.Name = "vlan5"; networkConfig.Address = "10.5.0.2/24"; };
    networks."50-any" = { matchConfig.Name = "en*"; };
    networks."60-mac" = { matchConfig.MACAddress = "02:00:00:00:00:09"; address = [ "10.9.0.2/24" ]; };
    networks."70-off" = { enable = false; matchConfig.Name = "eth7"; };
  };
}"""


def cards(config: str) -> Any:
    source = expression_sources()
    expression = (
        f"let safe = ({source['safe.nix']}); in"
        f' ({source["cards.nix"]}) {{ inherit safe; salt = "web"; }} ({config})'
    )
    argv = ["nix", "--extra-experimental-features", "nix-command", "eval", "--json", "--expr"]
    done = subprocess.run(
        [*argv, expression],
        capture_output=True,
        text=True,
        env={**os.environ, "NIX_PATH": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_cards_of_a_scripted_network() -> None:
    found = {card["name"]: card for card in cards(SCRIPTED)["cards"]}
    assert sorted(found) == ["eno1", "enp3s0"]
    assert found["enp3s0"]["addresses"] == ["10.0.0.1/24"]
    assert found["enp3s0"]["vlans"] == [{"name": "office", "id": 7, "addresses": ["fd00::1/64"]}]
    assert found["eno1"]["addresses"] == []
    assert len({card["hardware"] for card in found.values()}) == 2
    assert all(card["hardware"].startswith("52:54:00:") for card in found.values())


def test_cards_of_networkd() -> None:
    answer = cards(NETWORKD)
    lan, by_hardware = answer["cards"]
    assert (lan["name"], lan["hardware"]) == ("lan0", "aa:bb:cc:00:11:22")
    assert lan["link"] == {"Name": "lan0", "MTUBytes": "9000"}
    assert lan["addresses"] == ["192.168.1.2/24"]
    assert lan["vlans"] == [{"name": "vlan5", "id": 5, "addresses": ["10.5.0.2/24"]}]
    assert (by_hardware["name"], by_hardware["hardware"]) == ("", "02:00:00:00:00:09")
    assert answer["orphans"] == ["lost"]


def test_a_host_that_speaks_of_no_card_has_one() -> None:
    [card] = cards("{ }")["cards"]
    assert card["name"] == "" and card["addresses"] == []
