"""What a ruleset opens beyond what the host declares, in words: each way in once, with its rule
and where it leads in from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import msgspec

from pytest_nixos import Firewall, HostConfig, PortRange, observe

from .ports import FAMILIES, UDP_PROTOCOLS, declared_ranges, without

__all__ = [
    "Undeclared",
    "asked_interfaces",
    "extra_rule_texts",
    "hand_written",
    "is_written",
    "trusted_ways_out",
    "undeclared",
]

_TCP, _UDP, _OTHER = 6, 17, -1
_ICMP = (1, 58)
_DHCPV6_CLIENT = 546
_NEARLY_EVERY = 65_000
_EXTRA = (
    "networking.firewall.extraCommands",
    "networking.firewall.extraInputRules",
    "networking.nftables.ruleset",
)
_TABLES = "networking.nftables.tables"
_TABLE = re.compile(r"\btable\s+(?:(inet|ip6?|netdev|bridge)\s+)?([\w.-]+)\s*\{")


class Undeclared(msgspec.Struct, frozen=True, kw_only=True):
    """A way in that the host does not declare.

    :param places: (interface, family) through which it leads; the interface of no rule stands for
        any.
    :param is_everything: whether it is open for every protocol and port.
    :param cast: whom its packets are sent to: the guest alone, or all who listen.
    """

    opening: observe.Opening
    places: tuple[tuple[str, str], ...]
    is_everything: bool = False
    cast: observe.Cast = observe.Cast.UNICAST

    @property
    def what(self) -> str:
        """Say it without the rule: ``tcp 9101 over IPv6``."""
        words = self.opening.what
        if self.is_everything:
            blank = replace(self.opening, protocol=_OTHER, protocols=((255, 255),), ports=())
            words = blank.what.replace("protocol 255", "everything", 1)
        if self.cast is not observe.Cast.UNICAST:
            words += f" to {self.cast.name.lower()} addresses"
        families = {family for _, family in self.places}
        if len(families) == 1 and not self.opening.sources and not self.opening.destinations:
            words += f" over {FAMILIES[families.pop()]}"
        interfaces = sorted({interface for interface, _ in self.places})
        if observe.STRANGER not in interfaces:
            words += f" on {', '.join(interfaces)}"
        return words

    def __str__(self) -> str:
        reason = f" ({self.opening.why})" if self.opening.why else ""
        words = {
            observe.Decision.CONDITIONAL: f"{self.what}, conditionally{reason}",
            observe.Decision.UNKNOWN: f"{self.what}, cannot be judged{reason}",
        }.get(self.opening.decision, self.what)
        return f"{words}: {' -> '.join(self.opening.rules) or 'no rule refuses it'}"


def asked_interfaces(declared: Firewall, state: observe.FirewallState) -> list[str]:
    """Return the interfaces to judge: one that no rule names, those that are there, declared
    ones, and those that rules name.
    """
    trusted = _trusted(declared)
    outer = trusted_ways_out(declared, state)
    named = [*state.ruleset.interfaces, *(_pattern(name) for name in declared.interfaces)]
    found = [
        name
        for name in dict.fromkeys(named)
        if name in outer or not any(_fits(t, state.ruleset.seen_as(name)) for t in (*trusted, "lo"))
    ]
    return [observe.STRANGER, *found]


def trusted_ways_out(declared: Firewall, state: observe.FirewallState) -> list[str]:
    """Return the trusted interfaces behind which all others are, strangers too: nothing is refused
    then. A host that has an untrusted way out beside them is not open to all.
    """
    trusted = _trusted(declared)
    found: set[str] = set()
    for number in (4, 6):
        ways = state.ruleset.surroundings.ways_out(number)
        if all(any(_fits(t, way) for t in trusted) for way in ways):
            found.update(ways)
    return sorted(found)


def _trusted(declared: Firewall) -> list[str]:
    return [_pattern(name) for name in declared.trusted_interfaces] if declared.enabled else []


def undeclared(
    declared: Firewall, state: observe.FirewallState, *, protocols: Sequence[int] | None = None
) -> list[Undeclared]:
    """Return each way in that is not declared.

    :param protocols: only these IANA numbers; ``None`` for all but UDP.
    """
    found: dict[tuple[observe.Opening, bool, observe.Cast], dict[tuple[str, str], None]] = {}
    for interface in asked_interfaces(declared, state):
        for family in FAMILIES:
            for key in _at(declared, state, interface, family, protocols):
                # The family goes into the places, so that one rule for both is one line.
                found.setdefault(key, {}).setdefault((interface, family))
    return [
        Undeclared(opening=opening, places=tuple(places), is_everything=everything, cast=cast)
        for (opening, everything, cast), places in found.items()
    ]


def _at(
    declared: Firewall,
    state: observe.FirewallState,
    interface: str,
    family: str,
    protocols: Sequence[int] | None,
) -> Iterator[tuple[observe.Opening, bool, observe.Cast]]:
    """Give what is not declared at one interface, by one family; what is sent to all who listen
    only where it gets in by other rules than what is sent to the guest alone.
    """
    alone: set[tuple[object, ...]] = set()
    # There is no broadcast in IPv6.
    casts = [c for c in observe.Cast if family == "ip" or c is not observe.Cast.BROADCAST]
    for cast in casts:
        openings = state.ruleset.reach(interface=interface, family=family, cast=cast).openings()
        seen_as = state.ruleset.seen_as(interface)
        for opening, everything in _beyond(declared, openings, seen_as, protocols):
            key = (opening.decision, opening.sources, opening.rules)
            if cast is observe.Cast.UNICAST:
                alone.add(key)
            elif key in alone:
                continue
            yield _comparable(opening), everything, cast


def hand_written(host: HostConfig) -> bool:
    """Whether the host filters with a ruleset of its own in place of the NixOS firewall's."""
    enabled = host.option("networking.nftables.enable")
    return (
        not host.firewall.enabled
        and enabled.present
        and bool(enabled.value)
        and bool(extra_rule_texts(host))
    )


def extra_rule_texts(host: HostConfig) -> Mapping[str, str]:
    """Return the options that hold rules in the tools' own languages, with their texts; empty
    ones left out.
    """
    texts = {}
    for path in _EXTRA:
        option = host.option(path)
        if option.present and isinstance(option.value, str) and option.value.strip():
            texts[path] = option.value
    tables = host.option(_TABLES)
    for name, table in (tables.value if isinstance(tables.value, dict) else {}).items():
        if name != "nixos-fw" and isinstance(table, dict) and table.get("enable", True):
            head = f"table {table.get('family', 'inet')} {table.get('name', name)} {{"
            texts[f'{_TABLES}."{name}"'] = f"{head}\n{table.get('content', '')}\n}}"
    return texts


def is_written(found: Undeclared, texts: Mapping[str, str]) -> bool:
    """Whether the host's own rule texts name this way in: its rule stands in a table of theirs,
    and its numbers in the text.
    """
    if not found.opening.rules or found.is_everything:
        return False
    rule = found.opening.rules[-1]
    for path, text in texts.items():
        tables = {f"{family or 'ip'} {name}" for family, name in _TABLE.findall(text)}
        own = any(f"(in {table} " in rule for table in tables)
        generated = "nixos-fw" in rule and path.startswith("networking.firewall.")
        if not own and not generated and not (rule.startswith("-A ") and "extraCommands" in path):
            continue
        ends = {end for span in found.opening.ports for end in (span.first, span.last)}
        wanted = [str(e) for e in ends if e not in (0, 65535)]
        if wanted and all(re.search(rf"\b{number}\b", text) for number in wanted):
            return True
        words = " ".join(rule.partition(" (in ")[0].partition(" comment ")[0].split())
        if not wanted and words in " ".join(text.split()):
            return True
    return False


def _beyond(
    declared: Firewall,
    openings: Sequence[observe.Opening],
    interface: str,
    protocols: Sequence[int] | None,
) -> Iterator[tuple[observe.Opening, bool]]:
    for opening, everything in _condensed(openings):
        wanted = protocols is None or opening.protocol in protocols or everything
        udp = protocols is None and opening.protocol in UDP_PROTOCOLS and not everything
        if not wanted or udp or _is_expected(declared, opening):
            continue
        if everything and protocols is not None:
            continue  # told once, where no protocols are asked for
        if opening.protocol not in (_TCP, _UDP) or everything:
            yield opening, everything
            continue
        name = "tcp" if opening.protocol == _TCP else "udp"
        left = without(opening.ports, ranges_on(declared, name, interface))
        if left:
            yield replace(opening, ports=tuple(left)), False


def _condensed(
    openings: Sequence[observe.Opening],
) -> Iterator[tuple[observe.Opening, bool]]:
    """Tell what one rule opens for every protocol once."""
    groups: dict[observe.Opening, list[observe.Opening]] = {}
    for opening in openings:
        key = replace(opening, protocol=0, protocols=(), ports=(), details=())
        groups.setdefault(key, []).append(opening)
    for group in groups.values():
        full = {o.protocol for o in group if not o.details and _is_nearly_every(o.ports)}
        rest = next((o for o in group if o.protocol == _OTHER), None)
        if {_TCP, _UDP, _OTHER} <= full and rest is not None and len(rest.protocols) > 2:
            yield rest, True
            continue
        for opening in group:
            yield opening, False


def _is_nearly_every(ports: Sequence[PortRange]) -> bool:
    """Whether these are all ports, but for a few that other rules take; a protocol without ports
    has none.
    """
    return not ports or sum(span.last - span.first + 1 for span in ports) >= _NEARLY_EVERY


def _is_expected(declared: Firewall, opening: observe.Opening) -> bool:
    """Whether every NixOS firewall lets it in: ICMP, and the answer of a DHCPv6 server.

    See ``firewall-iptables.nix`` and ``firewall-nftables.nix`` in nixpkgs.
    """
    if opening.protocol in _ICMP:
        echo = opening.family == 4 and not declared.allow_ping
        kinds = dict(opening.details).get("icmp.type", ((0, 255),))
        return not (echo and any(first <= 8 <= last for first, last in kinds))
    client = (PortRange(first=_DHCPV6_CLIENT, last=_DHCPV6_CLIENT),)
    return opening.protocol == _UDP and opening.ports == client and opening.family == 6


def _comparable(opening: observe.Opening) -> observe.Opening:
    plain = opening.sources is None and opening.destinations is None
    return replace(opening, family=4) if plain else opening


def ranges_on(declared: Firewall, protocol: str, interface: str) -> list[PortRange]:
    """Return what the host declares open on `interface`, which may match a declared pattern such
    as ``podman+``.
    """
    if not declared.enabled:
        return []
    patterns = [n for n in declared.interfaces if _fits(_pattern(n), interface)]
    found = declared_ranges(declared, protocol, "")
    return found + [span for name in patterns for span in declared_ranges(declared, protocol, name)]


def _pattern(name: str) -> str:
    """Write an interface of iptables (``podman+``) as nftables does (``podman*``)."""
    return f"{name[:-1]}*" if name.endswith("+") else name


def _fits(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
