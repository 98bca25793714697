"""A member that is a container of Proxmox: its card as ``pct create`` tells it, and whether the host
took it.
"""

from __future__ import annotations

import msgspec

from pytest_nixos.errors import MachineError, SettingsError
from pytest_nixos.local.timing import poll
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.cluster.plan import Place
from pytest_nixos.machine.network.scan import GUEST_INTERFACE
from pytest_nixos.machine.pct import Pct
from pytest_nixos.nix.config.host_facts import HostConfig

__all__ = ["check_address", "pct_card"]

_LEASED_S = 8.0
_INTERVAL_S = 0.2


def pct_card(host: HostConfig, pct: Pct) -> HostConfig:
    """Return a host with the card that Proxmox gives it. What the host declares for it goes before:
    network files of NixOS come first in the order of their names (``40-eth0.network``).

    :param host: as its container has it, with one card.
    :raises SettingsError: if neither gives it an IPv4 address, by which members call each other.
    """
    (own,) = host.cards
    card = msgspec.structs.replace(
        own,
        hardware=pct.hardware or own.hardware,
        addresses=own.addresses or pct.addresses,
    )
    if not card.v4 and pct.ip != "dhcp":
        raise SettingsError(
            f"pct of {host.name}: neither --net0 nor the host gives {GUEST_INTERFACE} an IPv4 address",
            remedy="add ip=ADDRESS/LENGTH or ip=dhcp to --net0",
        )
    return msgspec.structs.replace(host, cards=(card,))


def check_address(machine: Machine, place: Place) -> None:
    """See that a container has taken the address that it is given.

    :raises MachineError: if it has not.
    """
    address, shown = str(place.address), ""

    def look() -> bool | None:
        nonlocal shown
        command = f"ip -o -4 address show dev {GUEST_INTERFACE}"
        shown = machine.run(command).stdout_text
        return address in shown.split() or None

    if not poll(look, deadline=machine.deadline(_LEASED_S), interval_s=_INTERVAL_S):
        has = " ".join(word for word in shown.split() if "/" in word) or "no address"
        raise MachineError(
            f"{place.host}: {GUEST_INTERFACE} has not taken {address}, which it is given as pct create does: it has {has}",
            remedy="have systemd-networkd read what Proxmox writes (proxmoxLXC.manageNetwork = false), "
            f"or declare the address in the host's config (networking.interfaces.{GUEST_INTERFACE})",
        )
