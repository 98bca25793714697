"""Ways in, and what a class of packets is judged to be."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pytest_nixos.nix.config.declared import PortRange
from pytest_nixos.observe.firewall.boxes import count
from pytest_nixos.observe.firewall.model import Rule
from pytest_nixos.observe.firewall.names import protocol_name
from pytest_nixos.observe.firewall.spans import Spans, listed_addresses, listed_numbers

__all__ = ["PORT_PROTOCOLS", "Decision", "Opening", "PortJudgement", "rule_text"]

PORT_PROTOCOLS = (6, 17, 33, 132, 136)
_COMMON = (6, 17)
_WORDS = {
    "sport": "from port",
    "icmp.type": "type",
    "icmpv6.type": "type",
    "icmp.code": "code",
    "icmpv6.code": "code",
}


class Decision(enum.Enum):
    """What becomes of a stranger's first packet."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CONDITIONAL = "conditional"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A way in.

    :param protocol: its IANA number; -1 for several that have no ports, listed in `protocols`.
    :param ports: destination ports, as the stranger writes them; empty for a protocol without
        ports.
    :param sources: who may use it; ``None`` for anybody.
    :param destinations: which of the guest's addresses; ``None`` for any.
    :param details: what else packets must be, as (dimension, values).
    :param rules: the rules that decide, outermost first; a base chain's policy where no rule does.
    :param target: where a rule sends the packets, ``""`` if nowhere else.
    :param why: for what is not plainly accepted: on what it depends.
    """

    family: int
    decision: Decision
    protocol: int
    ports: tuple[PortRange, ...] = ()
    protocols: Spans = ()
    sources: Spans | None = None
    destinations: Spans | None = None
    details: tuple[tuple[str, Spans], ...] = ()
    rules: tuple[str, ...] = ()
    target: str = ""
    forwarded: bool = False
    why: str = ""

    @property
    def is_general(self) -> bool:
        """Whether anybody's packets are accepted, whatever else they look like."""
        return self.sources is None and self.destinations is None and not self.details

    @property
    def _is_whole(self) -> bool:
        """Whether it is every port of a protocol that few speak."""
        every = (PortRange(first=0, last=65535),)
        return self.protocol not in _COMMON and self.ports == every

    @property
    def what(self) -> str:
        """Name it: ``tcp 22, 8000-8010 from 10.0.0.0/8``."""
        if self.protocol < 0:
            words = _protocol_list(self.protocols)
        elif self.protocol not in PORT_PROTOCOLS or self._is_whole:
            words = protocol_name(self.protocol)
        else:
            ports = ", ".join(str(span) for span in self.ports)
            words = f"{protocol_name(self.protocol)} {ports}"
        for dimension, values in self.details:
            words += f" {_WORDS.get(dimension, dimension)} {listed_numbers(values)}"
        if self.destinations is not None:
            words += f" to {listed_addresses(self.destinations, self.family)}"
        if self.sources is not None:
            words += f" from {listed_addresses(self.sources, self.family)}"
        return f"{words}, sent on to {self.target}" if self.target else words


@dataclass(frozen=True, slots=True, kw_only=True)
class PortJudgement:
    """What becomes of packets to some ports.

    :param answered: for refused ones: whether the sender is told.
    :param forwarded: whether they leave the guest again.
    """

    ports: Spans
    decision: Decision
    rules: tuple[str, ...]
    answered: bool
    forwarded: bool


def rule_text(rule: Rule) -> str:
    """Return a rule with the place where it stands; a rule of iptables says it itself."""
    if rule.text.startswith("-A "):
        kind = rule.table.split(" ", 1)[-1]
        return f"{rule.text} (table {kind})" if kind != "filter" else rule.text
    return f"{rule.text} (in {rule.table} {rule.chain})" if rule.table else rule.text


def _protocol_list(protocols: Spans) -> str:
    if count(protocols) > 8:
        return "all other protocols" if protocols[-1][1] == 255 else "many other protocols"
    return ", ".join(protocol_name(n) for a, b in protocols for n in range(a, b + 1))
