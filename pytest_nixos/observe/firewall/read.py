"""What a guest's tools show of its packet filter, read into one ruleset."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.firewall.ipset import parse_ipsets
from pytest_nixos.observe.firewall.iptables import parse_iptables_save
from pytest_nixos.observe.firewall.model import Chain, Tables
from pytest_nixos.observe.firewall.nft import parse_nft
from pytest_nixos.observe.firewall.probe import FirewallState, Tool
from pytest_nixos.observe.firewall.ruleset import Ruleset
from pytest_nixos.observe.firewall.surroundings import parse_surroundings
from pytest_nixos.observe.text import read_json

__all__ = ["parse_firewall"]

_UNITS = ("firewall.service", "nftables.service", "firewalld.service")
_TOOLS = ("nft", "iptables", "ip6tables")
_SAVED = ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy")
_FILLS = re.compile(r"--(?:add|del)-set (\S+)")
_FAMILIES = {"ip": 4, "ip6": 6}
_COMPATIBLE_TABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})


def parse_firewall(output: ProbeOutput) -> FirewallState:
    """Read what the guest showed; see :func:`~pytest_nixos.observe.firewall.probe.firewall`."""
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
