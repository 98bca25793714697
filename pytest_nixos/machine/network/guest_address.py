"""The guest's address on the network that it shares with us, as the guest itself tells it."""

from __future__ import annotations

import re
from ipaddress import IPv4Interface, IPv6Interface

import msgspec

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.command import Transport

__all__ = ["OuterAddresses", "ask_outer_addresses", "parse_outer"]

_EVERY_ADDRESS = "ip -o address show; ip -o -details link show"
_ADDRESS_LIMIT_S = 20.0
_LEASE_LIMIT_S = 30.0
_LEASE_INTERVAL_S = 0.5
_EITHER_LINE = re.compile(r"^\d+: (\S+)\s+(inet6?) ([0-9a-f.:]+/\d+)(.*)$", re.MULTILINE)
_LINK_LINE = re.compile(
    r"^\d+: ([^:@\s]+)[:@].*link/ether ((?:[0-9a-f]{2}:){5}[0-9a-f]{2})", re.MULTILINE
)
# What ip(8) tells of a link's kind with -details.
_LINK = re.compile(r"\d+: ([^:@\s]+)[:@]")
_KIND = re.compile(r"\\\s+(?!link/)(?P<kind>[a-z]\w+)\s")
_MASTER = re.compile(r"\bmaster (\S+)")
# Behind these stands no card of their own: what is sent there goes nowhere, into another frame or to a program.
_APART = frozenset(
    {"vlan", "dummy", "ifb", "wireguard", "vxlan", "geneve", "gre", "gretap", "ipip", "sit", "tun"}
    | {"vrf", "xfrm"}
)
_GATHERING = frozenset({"bridge", "bond", "team"})
# Networks that a guest makes for itself.
_INNER = ("docker", "podman", "cni", "veth", "virbr", "lxc", "wg", "tun", "tap", "zt", "tailscale")


class OuterAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's end of a network that it shares with us.

    :param v6: the widest in scope, ``None`` where it has none that can be used.
    :param mac: its Ethernet address, empty where the guest does not tell.
    """

    interface: str
    v4: IPv4Interface
    v6: IPv6Interface | None
    mac: bytes = b""


def ask_outer_addresses(
    name: str, transport: Transport, *, deadline: Deadline
) -> tuple[OuterAddresses, ...]:
    """Ask the guest for its interfaces and addresses on the networks that it may share with us.

    A boot has settled before the lease of an address is there, where nothing waits for it.

    :raises MachineError: if it has no IPv4 address.
    :raises TransportError: if it does not answer.
    """

    def ask() -> tuple[OuterAddresses, ...] | None:
        answer = transport.run(_EVERY_ADDRESS, deadline=deadline.within(_ADDRESS_LIMIT_S))
        return parse_outer(answer.stdout_text) or None

    found = poll(ask, deadline=deadline.within(_LEASE_LIMIT_S), interval_s=_LEASE_INTERVAL_S)
    if found is None:
        raise MachineError(
            f"{name}: the guest has no IPv4 address, so nobody can reach it",
            remedy="look at `ip address` in the guest: does its network come up in the machine?",
        )
    return found


def parse_outer(listing: str) -> tuple[OuterAddresses, ...]:
    """Read ``ip -o address`` and ``ip -o link``: one entry an interface, Ethernet devices first;
    none for what the guest makes for itself.
    """
    apart = _apart(listing)
    lines = [
        m
        for m in _EITHER_LINE.findall(listing)
        if m[0].partition("@")[0] not in apart and not m[0].startswith((*_INNER, "lo"))
    ]
    four = [m for m in lines if m[1] == "inet" and "scope global" in m[3]]
    four.sort(key=lambda m: not m[0].startswith(("en", "eth")))
    macs = {name: bytes.fromhex(mac.replace(":", "")) for name, mac in _LINK_LINE.findall(listing)}
    found: dict[str, OuterAddresses] = {}
    for interface, _, address, _ in four:
        six = [
            m
            for m in lines
            if m[0] == interface
            and m[1] == "inet6"
            and not any(w in m[3] for w in ("tentative", "deprecated", "temporary", "dadfailed"))
        ]
        six.sort(key=lambda m: "scope link" in m[3])
        entry = OuterAddresses(
            interface=interface,
            v4=IPv4Interface(address),
            v6=IPv6Interface(six[0][2]) if six else None,
            mac=macs.get(interface, b""),
        )
        found.setdefault(interface, entry)
    return tuple(found.values())


def _apart(listing: str) -> set[str]:
    """Return the interfaces that share no network with us: VLANs, tunnels, bridges and bonds without
    a card.
    """
    kinds, members = dict[str, str](), dict[str, list[str]]()
    for line in listing.splitlines():
        if "link/" not in line or (link := _LINK.match(line)) is None:
            continue
        name, kind = link[1], _KIND.search(line)
        kinds[name] = kind["kind"] if kind else ""
        if master := _MASTER.search(line):
            members.setdefault(master[1], []).append(name)

    def is_apart(name: str, seen: tuple[str, ...] = ()) -> bool:
        if name in seen or name.startswith(_INNER):
            return True
        if kinds.get(name) in _GATHERING:
            return all(is_apart(one, (*seen, name)) for one in members.get(name, ()))
        return kinds.get(name) in _APART

    return {name for name in kinds if is_apart(name)}
