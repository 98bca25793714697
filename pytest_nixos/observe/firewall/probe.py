"""The packet filter in force, read from a guest: nftables, both kinds of iptables, firewalld's
rules among them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.firewall.ipset import parse_ipsets
from pytest_nixos.observe.firewall.iptables import parse_iptables_save
from pytest_nixos.observe.firewall.model import Chain, Tables
from pytest_nixos.observe.firewall.nft import parse_nft
from pytest_nixos.observe.firewall.ruleset import Ruleset
from pytest_nixos.observe.firewall.surroundings import parse_surroundings
from pytest_nixos.observe.text import read_json

__all__ = ["FirewallState", "Tool", "firewall"]

_READ = r"""
PATH=$PATH:/run/current-system/sw/bin:/run/current-system/sw/sbin
# NixOS with the backend firewalld puts no nft on the path; it lies beside the library that firewalld uses.
if ! command -v nft >/dev/null; then
  firewalld=$(systemctl show --property=MainPID --value firewalld.service 2>/dev/null)
  while read -r line; do
    [[ $line =~ (/.*)/lib(/[^/]+)?/libnftables\.so ]] || continue
    PATH+=:${BASH_REMATCH[1]}/bin:${BASH_REMATCH[1]}/sbin
    break
  done 2>/dev/null </proc/"${firewalld:-0}"/maps
fi
show() {
  local name=$1; shift
  if command -v "$1" >/dev/null; then
    title "$name"; "$@"; title "$name-status $?"
  fi
}
title units; systemctl is-active firewall.service nftables.service firewalld.service
show nft nft -j list ruleset
show nft-text nft -a list ruleset
show iptables iptables-save
show ip6tables ip6tables-save
# Asked without need, these load modules into the kernel.
[ -n "$(</proc/net/ip_tables_names)" ] && show iptables-legacy iptables-legacy-save
[ -n "$(</proc/net/ip6_tables_names)" ] && show ip6tables-legacy ip6tables-legacy-save
[ -d /sys/module/ip_set ] && show ipset ipset save
title kernel
for family in ip ip6; do
  [ -r /proc/net/${family}_tables_names ] && printf '%s %s\n' $family "$(echo $(</proc/net/${family}_tables_names))"
done
show addresses ip -json -details address
show routes-4 ip -4 -json route show table all
show routes-6 ip -6 -json route show table all
show rules-4 ip -4 -json rule
show rules-6 ip -6 -json rule
title forwarding
printf '4 %s\n6 %s\n' "$(</proc/sys/net/ipv4/ip_forward)" "$(</proc/sys/net/ipv6/conf/all/forwarding)" 2>/dev/null
title senders
for file in /proc/sys/net/ipv4/conf/*/rp_filter; do
  name=${file%/*}
  printf '%s %s\n' "${name##*/}" "$(<"$file")"
done 2>/dev/null
true
"""

_UNITS = ("firewall.service", "nftables.service", "firewalld.service")
_TOOLS = ("nft", "iptables", "ip6tables")
_SAVED = ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy")
_FILLS = re.compile(r"--(?:add|del)-set (\S+)")
_FAMILIES = {"ip": 4, "ip6": 6}
_COMPATIBLE_TABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})


class Tool(enum.Enum):
    """Whether a program could be asked."""

    ABSENT = "absent"
    FAILED = "failed"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallState:
    """The guest's packet filter.

    :param tools: ``nft``, ``iptables``, ``ip6tables`` to whether they could be asked.
    :param units: ``firewall.service``, ``nftables.service``, ``firewalld.service`` to their active
        state.
    :param kernel_tables: family to tables of the old iptables interface in the kernel, even where
        no tool is there to show them.
    :param unseen: rules that are in force and that no tool showed, in words; empty where everything
        was seen.
    :param text: what the tools printed, for evidence.
    """

    ruleset: Ruleset
    tools: Mapping[str, Tool]
    units: Mapping[str, str]
    kernel_tables: Mapping[str, tuple[str, ...]]
    text: str
    unseen: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether any tool showed the rules; where not, an empty ruleset means nothing.

        firewalld keeps its rules in nftables, which the tools of iptables do not show.
        """
        if self.units.get("firewalld.service") == "active":
            return self.tools["nft"] is Tool.ANSWERED
        return Tool.ANSWERED in self.tools.values()

    @property
    def is_active(self) -> bool:
        """Whether a unit that loads rules is active."""
        return "active" in self.units.values()


def firewall(*, name: str = "firewall") -> Probe[FirewallState]:
    """Ask for the rules in force, the units that load them, and the interfaces and routes that
    they stand among.
    """
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> FirewallState:
    sections = dict(output.records)
    nft, nft_tables = _parse_nft(sections)
    tools = {"nft": nft, **{name: _tool(sections, name) for name in _TOOLS[1:]}}
    kernel = _kernel_tables(sections.get("kernel", ""))
    states = sections.get("units", "").split()
    shown = ("nft-text", "iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy", "ipset")
    surroundings = parse_surroundings(
        addresses=sections.get("addresses", ""),
        routes=[(family, sections.get(f"routes-{family}", "")) for family in (4, 6)],
        forwarding=sections.get("forwarding", ""),
        policies=[(family, sections.get(f"rules-{family}", "")) for family in (4, 6)],
        senders=sections.get("senders", ""),
    )
    return FirewallState(
        ruleset=Ruleset(tables=_tables(sections, nft_tables), surroundings=surroundings),
        tools=tools,
        units=dict(zip(_UNITS, states, strict=False)),
        kernel_tables=kernel,
        unseen=_unseen(sections, tools, kernel),
        text="\n".join(sections[name].strip() for name in shown if sections.get(name, "").strip()),
    )


def _tables(sections: Mapping[str, str], nft_tables: Tables) -> Tables:
    sets = parse_ipsets(sections.get("ipset", ""))
    filled = frozenset(_FILLS.findall("\n".join(sections.get(name, "") for name in _SAVED)))
    tables: dict[str, Mapping[str, Chain]] = {}
    for name, family in (("iptables", 4), ("ip6tables", 6)):
        text = sections.get(name, "")
        is_old = bool(text.strip()) and not _is_nft(text)
        # The kernel's old tables stand beside nftables' own of the same name.
        suffix = " (legacy)" if is_old and nft_tables else ""
        tables |= parse_iptables_save(text, family=family, sets=sets, filled=filled, suffix=suffix)
        if not is_old:
            legacy = sections.get(f"{name}-legacy", "")
            tables |= parse_iptables_save(
                legacy, family=family, sets=sets, filled=filled, suffix=" (legacy)"
            )
    # In the order in which they were made, the kernel's old tables taken to be the first: nft does
    # not show those.
    shown = {
        # iptables shows its own tables better than nft, which does not know its extensions.
        table: tables.pop(table, chains) if _is_compatible(table) else chains
        for table, chains in nft_tables.items()
    }
    return tables | shown


def _is_compatible(table: str) -> bool:
    return table.split(" ")[1] in _COMPATIBLE_TABLES


def _is_nft(text: str) -> bool:
    """Whether ``iptables-save`` is the one that speaks nftables; it says so in its first line."""
    return "(nf_tables)" in text


def _parse_nft(sections: Mapping[str, str]) -> tuple[Tool, Tables]:
    tool = _tool(sections, "nft")
    if tool is not Tool.ANSWERED:
        return tool, {}
    try:
        document = read_json(sections["nft"])
        return tool, parse_nft(document, sections.get("nft-text", ""))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        # A ruleset that cannot be read must not pass for an empty one.
        return Tool.FAILED, {}


def _tool(sections: Mapping[str, str], name: str) -> Tool:
    if name not in sections:
        return Tool.ABSENT
    return Tool.ANSWERED if f"{name}-status 0" in sections else Tool.FAILED


def _kernel_tables(text: str) -> Mapping[str, tuple[str, ...]]:
    words = (line.split() for line in text.split("\n"))
    return {first: tuple(rest) for first, *rest in (w for w in words if w)}


def _unseen(
    sections: Mapping[str, str], tools: Mapping[str, Tool], kernel: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    found = [f"{name} failed" for name, tool in tools.items() if tool is Tool.FAILED]
    for family, tables in kernel.items():
        name = "iptables" if family == "ip" else "ip6tables"
        text = sections.get(name, "") + sections.get(f"{name}-legacy", "")
        missing = [t for t in tables if f"*{t}" not in text]
        if missing and tools[name] is not Tool.FAILED:
            found.append(f"no tool shows the {name} tables {', '.join(missing)} of the kernel")
        elif tables and _is_nft(sections.get(name, "")) and f"{name}-legacy" not in sections:
            found.append(f"{name}-legacy is missing, and the kernel holds tables of it")
    return tuple(dict.fromkeys(found))
