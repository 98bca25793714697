"""What a host would have to say for ways in to be declared: the remedy of this host."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pytest_nixos import PortRange, observe

from .opened import Undeclared
from .ports import covers

__all__ = ["declarations", "remedy_of_ports", "remedy_of_trust", "remedy_of_ways"]

_TCP = 6
_NAMES = {_TCP: "TCP", 17: "UDP"}
_REMOVE = (
    "# Remove the rule that the finding names (extraCommands, extraInputRules,"
    " networking.nftables, a container's published port)"
)


def remedy_of_ways(found: Sequence[Undeclared]) -> str:
    """Return what mends these findings: a declaration where one can say it, at the interfaces that
    are open and no others.
    """
    ports: dict[str, dict[str, list[PortRange]]] = {}
    for way in found:
        name = _NAMES.get(way.opening.protocol)
        known = way.opening.decision is not observe.Decision.UNKNOWN
        plain = way.opening.is_general and not way.opening.forwarded and not way.is_everything
        if name is None or not known or not plain or way.cast is not observe.Cast.UNICAST:
            continue
        interfaces = {interface for interface, _ in way.places}
        for interface in [""] if observe.STRANGER in interfaces else sorted(interfaces):
            ports.setdefault(interface, {}).setdefault(name, []).extend(way.opening.ports)
    lines = declarations(ports)
    if not lines:
        return f"{_REMOVE}; no declaration of ports says what it opens."
    return "\n".join([f"{_REMOVE}, or declare what it opens:", *lines])


def remedy_of_trust(trusted: Sequence[str], ports: Collection[int]) -> str:
    """Return what mends that an interface is trusted behind which strangers are.

    :param ports: of TCP that answer, or that something listens on.
    """
    names = ", ".join(trusted)
    known = {name: {"TCP": _ranges(ports)} for name in trusted} if ports else {}
    opened = declarations(known) or [
        f'networking.firewall.interfaces."{name}".allowedTCPPorts = [ ];' for name in trusted
    ]
    return "\n".join(
        [
            f"# Take {names} out of networking.firewall.trustedInterfaces, and open there what strangers may reach; of these ports what is meant:",
            *opened,
        ]
    )


def remedy_of_ports(
    reached: Mapping[str, Collection[int]], found: Sequence[Undeclared] = ()
) -> str:
    """Return what mends ports that are reachable, by interface.

    :param found: ways in by the rules: what one sends on to others is open whatever is declared.
    """
    sent = [way for way in found if way.opening.forwarded and way.opening.protocol == _TCP]
    beyond = [span for way in sent for span in way.opening.ports]
    own = {i: {p for p in ports if not covers(beyond, p)} for i, ports in reached.items()}
    lines = [
        f'# {way.what}, by "{way.opening.rules[-1]}": take that rule away, or have it ask for the'
        " interface or the sender that is meant; a declaration of ports changes nothing there."
        for way in sent
        if way.opening.rules
        and any(covers(way.opening.ports, p) for r in reached.values() for p in r)
    ]
    if any(own.values()) or not lines:
        lines.append(_remedy_of_own(own))
    return "\n".join(lines)


def _remedy_of_own(reached: Mapping[str, Collection[int]]) -> str:
    everywhere = set.intersection(*(set(ports) for ports in reached.values())) if reached else set()
    ports = {"": {"TCP": _ranges(everywhere)}} if everywhere else {}
    for interface, found in sorted(reached.items()):
        if rest := set(found) - everywhere:
            ports[interface] = {"TCP": _ranges(rest)}
    words = "# Remove the rule that FW-003 names, or declare what it opens:"
    return "\n".join([words, *declarations(ports)])


def declarations(ports: Mapping[str, Mapping[str, Sequence[PortRange]]]) -> list[str]:
    """Write options of the NixOS firewall.

    :param ports: interface (``""`` for all) to ``TCP`` or ``UDP`` to ports.
    """
    lines = []
    for interface, protocols in ports.items():
        at = "networking.firewall" + (f'.interfaces."{interface}"' if interface else "")
        for protocol, spans in protocols.items():
            single = sorted({s.first for s in spans if s.first == s.last})
            wide = sorted({(s.first, s.last) for s in spans if s.first != s.last})
            if single:
                lines.append(f"{at}.allowed{protocol}Ports = [ {' '.join(map(str, single))} ];")
            if wide:
                written = " ".join(f"{{ from = {a}; to = {b}; }}" for a, b in wide)
                lines.append(f"{at}.allowed{protocol}PortRanges = [ {written} ];")
    return lines


def _ranges(ports: Collection[int]) -> list[PortRange]:
    return [PortRange(first=port, last=port) for port in sorted(ports)]
