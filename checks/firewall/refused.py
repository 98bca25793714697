"""Ports that a host declares open and that the rules in force refuse."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pytest_nixos import Firewall, PortRange, observe

from .opened import asked_interfaces, ranges_on
from .ports import FAMILIES, without

__all__ = ["RefusedPorts", "misnamed_interfaces", "refused_ports", "remedy_of_refused"]

_DIGITS = re.compile(r"\d+")
# Names as the kernel, systemd.net-naming-scheme(7) and the programs give them that make interfaces: such a one may
# come yet, however near it is to another.
_SHAPES = re.compile(
    r"(?:en|wl|ww|ib)(?:o\d+|s\d+\w*|x[0-9a-f]{12}|(?:P\d+)?p\d+s\d+\w*)"
    r"|(?:eth|wlan|lan|wan|dmz|mgmt|br|vmbr|virbr|lxcbr|lxdbr|incusbr|veth|vlan|vnet|docker|podman|cni|flannel"
    r"|tun|tap|wg|bond|team|dummy|ppp|usb|zt|tailscale)\d*"
    r"|(?:br|ve|vb|wg|tun|tap|vlan|lxc|podman)-.*|.*[.@:].*"
)
# Below it two names are of two interfaces.
_ALIKE = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPorts:
    """Declared ports that one and the same rules refuse.

    :param places: interface and family; the interface of no rule stands for any.
    :param rules: that decide, outermost first; empty where none is known.
    """

    protocol: str
    ports: PortRange
    places: tuple[tuple[str, str], ...]
    rules: tuple[str, ...]

    @property
    def subject(self) -> str:
        """Its name as a subject that findings blame and rest on."""
        return f"{self.protocol} {self.ports}"

    @property
    def what(self) -> str:
        """Say it without the rules: ``tcp 443 over IPv6``."""
        words = f"{self.protocol} {self.ports}"
        families = {family for _, family in self.places}
        if len(families) == 1:
            words += f" over {FAMILIES[families.pop()]}"
        interfaces = sorted({interface for interface, _ in self.places})
        return words if observe.STRANGER in interfaces else f"{words} on {', '.join(interfaces)}"

    def __str__(self) -> str:
        return f"{self.what} (refused by {' -> '.join(self.rules)})" if self.rules else self.what


def refused_ports(
    declared: Firewall, state: observe.FirewallState, protocol: str
) -> list[RefusedPorts]:
    """Return what is declared open and refused."""
    found: dict[tuple[PortRange, tuple[str, ...]], dict[tuple[str, str], None]] = {}
    for interface in asked_interfaces(declared, state):
        wanted = ranges_on(declared, protocol, state.ruleset.seen_as(interface))
        for family in FAMILIES:
            opened = state.ruleset.open_ports(
                protocol, interface=interface, family=family, up_to_a_limit=True
            )
            for ports in without(wanted, opened):
                judged = state.ruleset.judge(
                    protocol=protocol, port=ports.first, interface=interface, family=family
                )
                places = found.setdefault((ports, judged.rules), {})
                # What holds for any interface is not said of each.
                if (observe.STRANGER, family) not in places:
                    places[interface, family] = None
    return [
        RefusedPorts(protocol=protocol, ports=ports, places=tuple(places), rules=rules)
        for (ports, rules), places in found.items()
    ]


def misnamed_interfaces(
    declared: Firewall, protocol: str, known: Collection[str]
) -> Mapping[str, str]:
    """Return the interfaces that ports are declared for and that are another one misspelt: name
    to the name that is meant.

    A name that nobody knows may be of an interface that a program makes later. One of no usual shape
    that differs from a known name by a letter is a slip of the pen.

    :param known: names of interfaces that are there or that the host declares elsewhere.
    """
    found = {}
    for name, ports in declared.interfaces.items():
        if name in known or name.endswith(("+", "*")) or _SHAPES.fullmatch(name):
            continue
        if not (ports.tcp if protocol == "tcp" else ports.udp):
            continue
        others = [k for k in known if k != "lo" and _DIGITS.sub("#", k) != _DIGITS.sub("#", name)]
        for meant in get_close_matches(name, others, n=1, cutoff=_ALIKE):
            found[name] = meant
    return found


def remedy_of_refused(found: Sequence[RefusedPorts]) -> str:
    """Return what mends these: the declaration is there already."""
    lines = []
    for one in found:
        rule = one.rules[-1] if one.rules else "a rule that nobody knows"
        lines.append(
            f'# {one.what} is declared open, and refused by "{rule}".\n'
            "# A packet has to be accepted in every table: accept it there too, or take that rule away"
            " (extraCommands, extraInputRules, networking.nftables)."
        )
    return "\n".join(lines)
