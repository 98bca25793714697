"""The guest's address on the network that it shares with us, as the guest itself tells it."""

from __future__ import annotations

import re
from ipaddress import IPv4Interface

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import Transport

__all__ = ["ask_address", "outer_addresses"]

_ADDRESSES = "ip -4 -o address show scope global"
_ADDRESS_LIMIT_S = 20.0
_ADDRESS_LINE = re.compile(r"^\d+: (\S+)\s+inet (\d[\d.]*/\d+)", re.MULTILINE)
# Networks that a guest makes for itself.
_INNER = ("docker", "podman", "cni", "veth", "virbr", "lxc", "wg", "tun", "tap", "zt", "tailscale")


def ask_address(name: str, transport: Transport, *, deadline: Deadline) -> IPv4Interface:
    """Ask the guest for its address, got by DHCP or a static one.

    :raises MachineError: if it has none.
    :raises TransportError: if it does not answer.
    """
    answer = transport.run(_ADDRESSES, deadline=deadline.within(_ADDRESS_LIMIT_S))
    if not answer.succeeded:
        raise MachineError(
            f"{name}: the guest cannot tell its addresses: {answer.stderr_text.strip()[:200] or answer.exit_status}",
            remedy="see whether the guest still has its programs: ip of iproute2",
        )
    found = outer_addresses(answer.stdout_text)
    if not found:
        raise MachineError(
            f"{name}: the guest has no IPv4 address, so nobody can reach it",
            remedy="look at `ip address` in the guest: does its network come up in the VM?",
        )
    return found[0]


def outer_addresses(listing: str) -> list[IPv4Interface]:
    """Return the addresses that ``ip -4 -o address`` lists, Ethernet devices first, a guest's inner networks left out."""
    found = [(n, a) for n, a in _ADDRESS_LINE.findall(listing) if not n.startswith(_INNER)]
    found.sort(key=lambda pair: not pair[0].startswith(("en", "eth")))
    return [IPv4Interface(address) for _, address in found]
