"""Which card a container of Proxmox has on a network."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from pytest_nixos.errors import SettingsError
from pytest_nixos.machine.cluster.pct_member import pct_card
from pytest_nixos.machine.pct import Pct
from pytest_nixos.nix.command.refs import FlakeRef, HostRef
from pytest_nixos.nix.config.cards import Card
from pytest_nixos.nix.config.host_facts import parse_host_config
from tests.unit.host_documents import document

MADE = "52:54:00:00:00:01"


def card(net0: str, *declared: str) -> Card:
    own = Card(name="eth0", hardware=MADE, addresses=declared)
    made = parse_host_config(HostRef(FlakeRef("/f"), "ct"), document(), option_paths=())
    host = replace(made, cards=(own,))
    (found,) = pct_card(host, Pct.parse(f"--net0 name=eth0,{net0}", member="ct")).cards
    return found


def test_what_pct_says_is_on_the_card() -> None:
    assert card("ip=10.0.0.5/24").addresses == ("10.0.0.5/24",)
    assert card("ip=10.0.0.5/24").hardware == MADE
    assert card("ip=dhcp,hwaddr=BC:24:11:00:00:05").hardware == "bc:24:11:00:00:05"
    assert card("ip=dhcp").addresses == ()


def test_what_the_host_declares_goes_before() -> None:
    assert card("ip=10.0.0.5/24", "10.1.0.9/24").addresses == ("10.1.0.9/24",)
    assert card("ip=manual", "10.1.0.9/24").addresses == ("10.1.0.9/24",)


@pytest.mark.parametrize("net0", ["ip=manual", "ip6=fd00::5/64"])
def test_a_member_without_an_ipv4_address_is_refused(net0: str) -> None:
    with pytest.raises(SettingsError, match="neither --net0 nor the host gives eth0 an IPv4"):
        card(net0)
