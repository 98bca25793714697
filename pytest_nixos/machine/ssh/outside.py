"""What a live host looks like from the machine that runs pytest, which is a stranger to it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.network.scan import scan_tcp
from pytest_nixos.machine.survey import Survey, View

__all__ = ["ASK_ENDS", "MOST_PORTS", "Ends", "holder_of", "look_from_here", "parse_ends"]

Address = IPv4Address | IPv6Address

#: Ports that are tried at most: a live host is looked at, not flooded.
MOST_PORTS = 4096
#: For the login shell, whichever it is; ssh(1) tells the form of the variable.
ASK_ENDS = 'echo "$SSH_CONNECTION"'
_ADDRESS_LINE = re.compile(r"^\d+: (\S+)\s+inet6? ([0-9a-f.:]+)[/ ]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ends:
    """The two addresses of our connection, as the host sees them."""

    stranger: Address
    guest: Address


def parse_ends(text: str) -> Ends | None:
    """Read ``SSH_CONNECTION``; ``None`` if it is not there."""
    words = text.split()
    try:
        if len(words) == 4:
            return Ends(*(_address(word) for word in (words[0], words[2])))
    except ValueError:
        pass
    return None


def holder_of(listing: str, address: Address) -> str:
    """Return the interface that has `address`, ``""`` for none.

    :param listing: ``ip -o address show``.
    """
    for name, text in _ADDRESS_LINE.findall(listing):
        if ip_address(text) == address:
            return str(name)
    return ""


def look_from_here(
    name: str, wanted: Survey, target: Address, ends: Ends | None, listing: str, deadline: Deadline
) -> View:
    """Try TCP ports of a host at the address that ssh connects to.

    UDP is not tried: from here its silence tells nothing. Where an address was translated on the
    way the view has none, since nobody knows then whose packets the host judges.

    :raises MachineError: if more ports are wanted than a live host is tried with.
    """
    ports: Sequence[int] = sorted({*wanted.tcp, *wanted.patient_tcp})
    if len(ports) > MOST_PORTS:
        raise MachineError(
            f"{name}: {len(ports)} ports are more than a live host is tried with ({MOST_PORTS})",
            remedy="ask for fewer ports; a VM or a container of the host is tried with all",
        )
    found = scan_tcp(target, ports, deadline=deadline)
    known = ends if ends is not None and ends.guest == target else None
    interface = holder_of(listing, known.guest) if known else ""
    return View(
        interface=interface,
        family="ip" if target.version == 4 else "ip6",
        stranger=known.stranger if known and interface else None,
        guest=known.guest if known and interface else None,
        tcp=found,
        own_frames=False,
    )


def _address(text: str) -> Address:
    found = ip_address(text.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
