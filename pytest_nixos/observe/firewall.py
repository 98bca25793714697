"""The packet filter in force: what it lets in, whichever of nftables and iptables made it."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pytest_nixos.nix.declared import PortRange
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.filtering import (
    Chain,
    Condition,
    Decision,
    FilterRule,
    Judgement,
    Kind,
    Packet,
    Verdict,
    accept_paths,
    judge,
    open_ports,
)
from pytest_nixos.observe.iptables import parse_iptables_save
from pytest_nixos.observe.nftables import parse_nft
from pytest_nixos.observe.sections import split_sections

__all__ = ["AcceptRule", "FirewallState", "Ruleset", "Tool", "firewall"]

_READ = r"""
PATH=$PATH:/run/current-system/sw/bin:/run/current-system/sw/sbin
show() {
  local name=$1; shift
  if command -v "$1" >/dev/null; then
    printf '=%s\n' "$name"; "$@"; printf '\n=%s-status %s\n' "$name" $?
  fi
}
printf '=units\n'; systemctl is-active firewall.service nftables.service
show nft nft -j list ruleset
show nft-text nft -a list ruleset
show iptables iptables-save
show ip6tables ip6tables-save
printf '=kernel\n'
for family in ip ip6; do
  [ -r /proc/net/${family}_tables_names ] && printf '%s %s\n' $family "$(echo $(</proc/net/${family}_tables_names))"
done
true
"""

_UNITS = ("firewall.service", "nftables.service")
_STRANGER = "stranger0"  # an interface that no rule names
# Without the text a rule is shown as its JSON.
_FIB = re.compile(r'fib saddr|"fib":')
# "icmp type nd-redirect" is no redirection.
_REDIRECTION = re.compile(
    r"(?<!type )(?:^|\s)(?:dnat|redirect|tproxy)\b(?! drop| accept)|-j (?:DNAT|REDIRECT|TPROXY)\b"
)
_COMPATIBLE_TABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})


class Tool(enum.Enum):
    """Whether a program could be asked."""

    ABSENT = "absent"
    FAILED = "failed"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRule:
    """A way in.

    :param protocol: ``tcp``, ``udp``; ``""`` for any or another.
    :param interfaces: interfaces that it is limited to, empty for all.
    :param families: families that it is limited to, empty for both.
    :param text: rules from the base chain inwards, as the guest's tool prints them.
    """

    text: str
    protocol: str = ""
    ports: tuple[PortRange, ...] = ()
    interfaces: tuple[str, ...] = ()
    families: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """Filter rules by table and chain, and what they mean for a stranger.

    :param tables: table (``inet nixos-fw``, ``ip filter``) to chains by name.
    """

    tables: Mapping[str, Mapping[str, Chain]] = field(default_factory=dict)

    def judge(
        self, *, protocol: str, port: int, interface: str = _STRANGER, family: str = "ip"
    ) -> Judgement:
        """Tell what becomes of the first packet of a connection to `port` from outside."""
        packet = Packet(family=family, interface=interface, protocol=protocol, port=port)
        return judge(self.tables, packet)

    def open_ports(
        self, protocol: str, *, interface: str = _STRANGER, family: str = "ip"
    ) -> Sequence[PortRange]:
        """Return every port that is accepted without conditions; adjacent ranges are joined."""
        return open_ports(self.tables, protocol=protocol, interface=interface, family=family)

    def refuses_by_default(self, *, family: str = "ip") -> bool:
        """Whether a packet that no rule names is refused.

        Asked of a protocol that nobody uses, so that the answer holds for an ending rule ("drop all") as for a
        base chain's policy.
        """
        verdict = self.judge(protocol="none", port=0, family=family)
        return verdict.decision is Decision.REFUSED

    @property
    def trusted_interfaces(self) -> Sequence[str]:
        """Interfaces from which everything is accepted."""
        return sorted({n for rule in self._accept_rules(_is_trust) for n in rule.interfaces})

    @property
    def accepted_ports(self) -> Sequence[AcceptRule]:
        """The rules that open TCP or UDP ports and look at nothing but interface, family and port."""
        return self._accept_rules(_opens_ports)

    @property
    def extra_accepts(self) -> Sequence[AcceptRule]:
        """Ways in beyond ports, trusted interfaces and what every NixOS firewall accepts.

        Rules for one source address, with a rate limit, for another protocol, or for everything.
        """
        return self._accept_rules(_is_extra)

    @property
    def accepts_ping(self) -> bool:
        """Whether ICMPv4 echo requests from outside are accepted, perhaps up to a rate."""
        for _, conditions in accept_paths(self.tables):
            kinds = {c.kind for c in conditions if c.kind is not Kind.OTHER}
            types = [c for c in conditions if c.kind is Kind.ICMP_TYPE]
            if (
                kinds <= {Kind.PROTOCOL, Kind.FAMILY, Kind.ICMP_TYPE, Kind.STATE}
                and _allows(conditions, Kind.STATE, "new")
                and _allows(conditions, Kind.PROTOCOL, "icmp")
                and _allows(conditions, Kind.FAMILY, "ip")
                and all(("echo-request" in c.values) != c.negated for c in types)
            ):
                return True
        return False

    @property
    def has_reverse_path_filter(self) -> bool:
        """Whether packets whose answer would leave by another way are dropped before routing."""
        return any(
            chain.policy is Verdict.DROP and any(_FIB.search(r.text) for r in chain.rules)
            for chain in self._chains("prerouting")
        ) or any(
            "--match rpfilter" in r.text or "-m rpfilter" in r.text
            for chains in self.tables.values()
            for chain in chains.values()
            for r in chain.rules
        )

    @property
    def redirections(self) -> Sequence[str]:
        """Rules that send incoming packets to another port or address."""
        return [
            rule.text
            for chains in self.tables.values()
            for chain in chains.values()
            if chain.kind == "nat" or not chain.kind
            for rule in chain.rules
            if _REDIRECTION.search(rule.text)
        ]

    def _chains(self, hook: str) -> Sequence[Chain]:
        return [c for chains in self.tables.values() for c in chains.values() if c.hook == hook]

    def _accept_rules(self, wanted: object) -> Sequence[AcceptRule]:
        assert callable(wanted)
        found = (
            _accept_rule(path, conditions)
            for path, conditions in accept_paths(self.tables)
            if _allows(conditions, Kind.STATE, "new") and wanted(conditions)
        )
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallState:
    """The guest's packet filter.

    :param tools: ``nft``, ``iptables``, ``ip6tables`` to whether they could be asked.
    :param units: ``firewall.service`` and ``nftables.service`` to their active state.
    :param kernel_tables: family to tables of the old iptables interface in the kernel, even where no tool is
        there to show them.
    :param text: what the tools printed, for evidence.
    """

    ruleset: Ruleset
    tools: Mapping[str, Tool]
    units: Mapping[str, str]
    kernel_tables: Mapping[str, tuple[str, ...]]
    text: str

    @property
    def is_known(self) -> bool:
        """Whether any tool showed the rules; where not, an empty ruleset means nothing."""
        return Tool.ANSWERED in self.tools.values()

    @property
    def is_active(self) -> bool:
        """Whether one of the NixOS firewall's units is active."""
        return "active" in self.units.values()


def firewall(*, name: str = "firewall") -> Probe[FirewallState]:
    """Ask for the rules in force and the firewall's units."""
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> FirewallState:
    lines = split_sections(output.text)
    sections = {title: "\n".join(found) for title, found in lines.items()}
    nft, nft_tables = _parse_nft(sections)
    tools = {"nft": nft, **{name: _tool(sections, name) for name in ("iptables", "ip6tables")}}
    tables: dict[str, Mapping[str, Chain]] = {}
    for name, family in (("iptables", "ip"), ("ip6tables", "ip6")):
        tables |= parse_iptables_save(sections.get(name, ""), family=family)
    for table, chains in nft_tables.items():
        # iptables shows its own tables better than nft, which does not know its extensions.
        if table not in tables or table.split(" ")[1] not in _COMPATIBLE_TABLES:
            tables[table] = chains
    states = sections.get("units", "").split()
    shown = ("nft-text", "iptables", "ip6tables")
    return FirewallState(
        ruleset=Ruleset(tables=tables),
        tools=tools,
        units=dict(zip(_UNITS, states, strict=False)),
        kernel_tables=_kernel_tables(sections.get("kernel", "")),
        text="\n".join(sections[name].strip() for name in shown if sections.get(name, "").strip()),
    )


def _parse_nft(
    sections: Mapping[str, str],
) -> tuple[Tool, Mapping[str, Mapping[str, Chain]]]:
    tool = _tool(sections, "nft")
    if tool is not Tool.ANSWERED:
        return tool, {}
    try:
        document = json.loads(sections["nft"])
        return tool, parse_nft(document, sections.get("nft-text", ""))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        # A ruleset that cannot be read must not pass for an empty one.
        return Tool.FAILED, {}


def _tool(sections: Mapping[str, str], name: str) -> Tool:
    if name not in sections:
        return Tool.ABSENT
    return Tool.ANSWERED if f"{name}-status 0" in sections else Tool.FAILED


def _kernel_tables(text: str) -> Mapping[str, tuple[str, ...]]:
    words = (line.split() for line in text.splitlines())
    return {first: tuple(rest) for first, *rest in (w for w in words if w)}


def _accept_rule(path: Sequence[FilterRule], conditions: Sequence[Condition]) -> AcceptRule:
    protocols = [c.values for c in conditions if c.kind is Kind.PROTOCOL and not c.negated]
    telling = [r.text for r in path if any(c.kind is not Kind.STATE for c in r.conditions)]
    return AcceptRule(
        text=" -> ".join(telling) or path[-1].text,
        protocol=protocols[-1][0] if protocols and len(protocols[-1]) == 1 else "",
        ports=tuple(r for c in conditions if c.kind is Kind.PORT for r in c.ports),
        interfaces=_names(conditions, Kind.INTERFACE),
        families=_names(conditions, Kind.FAMILY),
    )


def _names(conditions: Sequence[Condition], kind: Kind) -> tuple[str, ...]:
    found = (v for c in conditions if c.kind is kind and not c.negated for v in c.values)
    return tuple(dict.fromkeys(found))


def _allows(conditions: Sequence[Condition], kind: Kind, value: str) -> bool:
    return all((value in c.values) != c.negated for c in conditions if c.kind is kind)


def _is_trust(conditions: Sequence[Condition]) -> bool:
    kinds = [c.kind for c in conditions if c.kind is not Kind.STATE]
    return set(kinds) == {Kind.INTERFACE} and not any(c.negated for c in conditions)


def _opens_ports(conditions: Sequence[Condition]) -> bool:
    kinds = {c.kind for c in conditions}
    plain = {Kind.PROTOCOL, Kind.PORT, Kind.FAMILY, Kind.INTERFACE, Kind.STATE}
    return kinds <= plain and Kind.PORT in kinds and Kind.PROTOCOL in kinds


def _is_extra(conditions: Sequence[Condition]) -> bool:
    return not (_is_trust(conditions) or _opens_ports(conditions) or _is_standard(conditions))


def _is_standard(conditions: Sequence[Condition]) -> bool:
    """Whether it is an accept of every NixOS firewall: ICMP, or the answer of a DHCPv6 server.

    See ``firewall-iptables.nix`` and ``firewall-nftables.nix`` in nixpkgs.
    """
    protocols = {
        v for c in conditions if c.kind is Kind.PROTOCOL and not c.negated for v in c.values
    }
    if protocols and protocols <= {"icmp", "icmpv6"}:
        return True
    ports = [str(r) for c in conditions if c.kind is Kind.PORT for r in c.ports]
    return (
        protocols == {"udp"} and ports == ["546"] and any(c.kind is Kind.OTHER for c in conditions)
    )
