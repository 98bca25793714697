"""``host.nftables`` and ``host.iptables``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from testinfra.modules.base import InstanceModule
from testinfra.modules.iptables import Iptables

__all__ = ["Nftables", "NixosIptables"]

Json = Any


class Nftables(InstanceModule):
    """Read the nftables ruleset in force.

    >>> host.nftables.chain("input", table="nixos-fw")["policy"]
    'drop'
    >>> "tcp dport { 22, 11434 } accept" in host.nftables.rules("input-allow", table="nixos-fw")
    True
    """

    @property
    def ruleset(self) -> Sequence[Mapping[str, Json]]:
        """The whole ruleset as ``nft -j list ruleset`` gives it: objects of one key (``table``,
        ``chain``, ``rule``, ``set``, ``map``, ...).

        :raises RuntimeError: if the guest has no nft.
        """
        document = json.loads(self.check_output("%s -j list ruleset", self._nft))
        return [entry for entry in document["nftables"] if "metainfo" not in entry]

    def tables(self) -> Sequence[tuple[str, str]]:
        """Return (family, name) of each table."""
        return [(t["family"], t["name"]) for t in self._objects("table")]

    def chains(self, *, table: str, family: str = "inet") -> Mapping[str, Mapping[str, Json]]:
        """Return the chains of one table by name; base chains have ``hook``, ``prio`` and
        ``policy``.
        """
        return {
            chain["name"]: chain
            for chain in self._objects("chain")
            if (chain["family"], chain["table"]) == (family, table)
        }

    def chain(self, name: str, *, table: str, family: str = "inet") -> Mapping[str, Json]:
        """Return one chain.

        :raises KeyError: if there is none of that name.
        """
        return self.chains(table=table, family=family)[name]

    def rules(self, chain: str, *, table: str, family: str = "inet") -> Sequence[str]:
        """Return the rules of one chain as nft prints them, in order.

        :raises AssertionError: if there is no such chain.
        """
        text = self.check_output("%s list chain %s %s %s", self._nft, family, table, chain)
        # table F T {
        # \tchain C {
        # \t\ttype filter hook input priority filter; policy drop;
        # \t\trule
        lines = [line.strip() for line in text.splitlines()[2:]]
        return _join_braces(line for line in lines if line and not line.startswith("type "))

    def elements(self, name: str, *, table: str, family: str = "inet") -> Sequence[Json]:
        """Return the elements of one named set.

        :raises KeyError: if there is none of that name.
        """
        for found in self._objects("set"):
            if (found["family"], found["table"], found["name"]) == (family, table, name):
                return list(found.get("elem", []))
        raise KeyError(name)

    def _objects(self, kind: str) -> Sequence[Mapping[str, Json]]:
        return [entry[kind] for entry in self.ruleset if kind in entry]

    @property
    def _nft(self) -> str:
        return _find(self, "nft", "networking.nftables.enable is false on this host")

    def __repr__(self) -> str:
        return "<nftables>"


class NixosIptables(Iptables):
    """Read iptables rules; says so where the host filters with nftables and has no iptables."""

    def _iptables_command(self, version: int) -> str:
        if version not in (4, 6):
            raise RuntimeError(f"Invalid version: {version}")
        program = "iptables" if version == 4 else "ip6tables"
        path = _find(self, program, "where networking.nftables.enable is set, ask host.nftables")
        return f"{path} -w 90"


def _find(module: Any, program: str, hint: str) -> str:
    try:
        return str(module.find_command(program))
    except ValueError as err:
        raise RuntimeError(f"the guest has no {program}: {hint}") from err


def _join_braces(lines: Any) -> Sequence[str]:
    """Put a rule that nft breaks over several lines (a verdict map) back on one; drop closing
    braces.
    """
    rules: list[str] = []
    depth = 0
    for line in lines:
        if depth == 0 and line == "}":
            continue
        if depth > 0:
            rules[-1] = f"{rules[-1]} {line}"
        else:
            rules.append(line)
        depth += line.count("{") - line.count("}")
    return rules
