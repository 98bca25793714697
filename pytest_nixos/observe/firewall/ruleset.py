"""A ruleset that can be asked what it lets in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from pytest_nixos.nix.config.declared import PortRange
from pytest_nixos.observe.firewall.cast import Cast
from pytest_nixos.observe.firewall.classes import Outcome, Start
from pytest_nixos.observe.firewall.evaluate import ANY_PORT, walk
from pytest_nixos.observe.firewall.model import (
    BRIDGE,
    Chain,
    Choose,
    Match,
    Nat,
    Reason,
    Step,
    Tables,
    Test,
    Verdict,
)
from pytest_nixos.observe.firewall.names import PROTOCOLS
from pytest_nixos.observe.firewall.opening import Decision, PortJudgement, rule_text
from pytest_nixos.observe.firewall.reach import Reach
from pytest_nixos.observe.firewall.routing import Surroundings
from pytest_nixos.observe.firewall.spans import Spans, cut, only
from pytest_nixos.observe.firewall.strangers import are_few, strangers_box

__all__ = ["STRANGER", "Judgement", "Ruleset"]

STRANGER = ANY_PORT  # an interface that no rule names
_FAMILIES = {"ip": 4, "ip6": 6}
_UNUSED_PROTOCOL = 253  # for experiments, RFC 3692
_ECHO = {4: ("icmp.type", 8), 6: ("icmpv6.type", 128)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The decision on some packets and the rules that made it, outermost first."""

    decision: Decision
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Ruleset:
    """Rules by table and chain, and what they mean for a stranger.

    :param tables: table (``inet nixos-fw``, ``ip filter``) to chains by name.
    :param surroundings: what the rules stand in.
    """

    tables: Tables = field(default_factory=dict)
    surroundings: Surroundings = field(default_factory=Surroundings)
    _walks: dict[tuple[object, ...], tuple[Reach, tuple[Outcome, ...]]] = field(
        default_factory=dict, repr=False
    )

    def reach(
        self, *, interface: str = STRANGER, family: str = "ip", cast: Cast = Cast.UNICAST
    ) -> Reach:
        """Return what becomes of every packet from `interface`.

        :param cast: whom they are sent to: the guest alone, or all who listen.
        """
        return self._walk(interface, family, cast)[0]

    def seen_as(self, interface: str) -> str:
        """Return the interface that IP sees in place of `interface`: a bridge or bond in place of
        its ports.
        """
        return self.surroundings.way_in(interface)[-1].name

    def judge(
        self, *, protocol: str | int, port: int, interface: str = STRANGER, family: str = "ip"
    ) -> Judgement:
        """Tell what becomes of the first packet of a connection to `port` from outside."""
        number = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
        packets = {"protocol": only(number), "dport": only(port)}
        decision, rules = self.reach(interface=interface, family=family).judge(packets)
        return Judgement(decision=decision, rules=rules)

    def open_ports(
        self,
        protocol: str,
        *,
        interface: str = STRANGER,
        family: str = "ip",
        up_to_a_limit: bool = False,
    ) -> Sequence[PortRange]:
        """Return every port that is accepted from anybody; adjacent ranges are joined.

        :param up_to_a_limit: count what is accepted conditionally too.
        """
        decisions = {Decision.ACCEPTED, *([Decision.CONDITIONAL] if up_to_a_limit else [])}
        reach = self.reach(interface=interface, family=family)
        return reach.open_ports(PROTOCOLS[protocol], decisions)

    def default(self, *, family: str = "ip", interface: str = STRANGER) -> Judgement:
        """Tell what becomes of a packet that no rule names, neither by itself nor by its sender.

        Asked of a protocol that nobody uses, so that the answer holds for an ending rule ("drop
        all") as for a base chain's policy. Whom a rule trusts by name (``ip saddr 10.0.0.0/8
        accept``, a zone's source of firewalld) is let in by that rule and not by default; where
        such rules name many of all who could send, they are the default.
        """
        reach = self.reach(interface=interface, family=family)
        packets = {"protocol": only(_UNUSED_PROTOCOL)}
        named = reach.senders_let_in(packets)
        if are_few(named, _FAMILIES[family]):
            packets["saddr"] = cut(reach.start["saddr"], named)
        decision, rules = reach.judge(packets)
        return Judgement(decision=decision, rules=rules)

    def refuses_by_default(self, *, family: str = "ip", interface: str = STRANGER) -> bool:
        """Whether a packet that no rule names is refused."""
        return self.default(family=family, interface=interface).decision is Decision.REFUSED

    def refuses_to_forward(self, *, family: str = "ip") -> bool:
        """Whether a packet to somebody behind the guest, that no rule names, is refused."""
        start = Start(
            family=_FAMILIES[family],
            interface=STRANGER,
            box=strangers_box(_FAMILIES[family]) | {"protocol": only(_UNUSED_PROTOCOL)},
            to_host=False,
        )
        return not any(o.accepted for o in walk(self.tables, self.surroundings, start))

    def accepts_ping_from(self, interface: str, *, family: str = "ip") -> Decision:
        """Tell what becomes of an ICMP echo request."""
        number = _FAMILIES[family]
        dimension, kind = _ECHO[number]
        packets = {"protocol": only(1 if number == 4 else 58), dimension: only(kind)}
        return self.reach(interface=interface, family=family).judge(packets)[0]

    @property
    def accepts_ping(self) -> bool:
        """Whether ICMPv4 echo requests from outside are accepted, perhaps up to a rate."""
        found = self.accepts_ping_from(STRANGER)
        return found in (Decision.ACCEPTED, Decision.CONDITIONAL)

    @property
    def interfaces(self) -> Sequence[str]:
        """Interfaces through which strangers may come: present ones, and those that rules name
        (perhaps with ``*``).
        """
        below = {n for c in self._chains() if c.hook == "ingress" for n in c.devices or ()}
        bridging = any(
            BRIDGE in c.families and c.hook in ("prerouting", "input") for c in self._chains()
        )
        present = [
            i.name
            for i in self.surroundings.interfaces
            # What comes by a port comes by its master; rules for the port alone are rare.
            if self.seen_as(i.name) == i.name or bridging or i.name in below
        ]
        named = [n for test in self._tests() if test.dimension == "iif" for n in test.names]
        return sorted({*present, *named} - {"lo"})

    @property
    def trusted_interfaces(self) -> Sequence[str]:
        """Interfaces from which everything is accepted, though a stranger's interface is not
        trusted so.

        The loopback interface counts where a rule names it.
        """
        if not self.refuses_by_default():
            return []
        loopback = any("lo" in t.names for t in self._tests() if t.dimension == "iif")
        asked = [*self.interfaces, *(["lo"] if loopback else [])]
        return sorted(n for n in asked if self._trusts(n))

    def _trusts(self, interface: str) -> bool:
        # Of other protocols there are messages that open nothing, which firewalld refuses of all.
        packets = {"protocol": only(PROTOCOLS["tcp"], PROTOCOLS["udp"], _UNUSED_PROTOCOL)}
        return all(
            self.reach(interface=interface, family=f).judge(packets)[0] is Decision.ACCEPTED
            for f in _FAMILIES
        )

    @property
    def limits(self) -> Sequence[str]:
        """The rules that limit how fast strangers may connect by TCP, where the limit decides."""
        found: dict[str, None] = {}
        for interface in (STRANGER, *self.interfaces):
            for family in _FAMILIES:
                for piece in self.reach(interface=interface, family=family).pieces:
                    if piece.decision is not Decision.CONDITIONAL:
                        continue
                    if not _holds(piece.box.get("protocol"), PROTOCOLS["tcp"]):
                        continue
                    for doubt in piece.outcome.doubts:
                        if doubt.reason in (Reason.LIMIT, Reason.MEMORY):
                            found.setdefault(rule_text(doubt.rule))
        return list(found)

    @property
    def has_reverse_path_filter(self) -> bool:
        """Whether packets whose answer would leave by another way are refused, which honest ones
        are not; of IPv4 also by the kernel, if rules do so for IPv6, which it cannot. A rule that
        exempts a tunnel says nothing of strangers; one for the card that leads to all others does.
        """
        families = {f for c in self._chains() if c.hook for f in c.families} - {BRIDGE}
        if self.surroundings.checks_senders:
            families -= {4}
        return bool(families) and all(
            self._refuses_forged(family, interface)
            for family in families
            for interface in (STRANGER, *self.surroundings.ways_out(family))
        )

    def _refuses_forged(self, family: int, interface: str) -> bool:
        def passes(*, honest: bool, early: bool) -> bool:
            # Every NixOS firewall lets forged DHCP pass this check, so TCP is asked about.
            box = strangers_box(family) | {"protocol": only(PROTOCOLS["tcp"])}
            start = Start(family=family, interface=interface, box=box, honest=honest)
            found = walk(self.tables, self.surroundings, start, only_before_routing=early)
            return any(outcome.accepted for outcome in found)

        if passes(honest=False, early=False):
            return False
        # A host that refuses everything anyway has a filter of its own only where it stands apart.
        return passes(honest=True, early=False) or not passes(honest=False, early=True)

    @property
    def may_drop_replies(self) -> bool:
        """Whether rules for outgoing packets refuse any, so that silence says nothing about
        incoming ones.
        """
        return any(
            _drops(chain)
            for chain in self._chains()
            if chain.hook in ("output", "postrouting", "egress") and chain.kind != "nat"
        )

    def judge_ports(
        self,
        *,
        protocol: str,
        source: str,
        destination: str,
        interface: str,
        own_frames: bool = True,
    ) -> Sequence[PortJudgement]:
        """Tell for each port what becomes of one stranger's first packet, see :meth:`Reach.ports`.

        :param source: the stranger's address.
        :param destination: the guest's.
        :param own_frames: whether it is a prober's packet, or any kernel's, whose size and hops
            are not known.
        """
        packets = _frames_of(protocol, source, destination)
        if not own_frames:
            packets = {d: v for d, v in packets.items() if d in ("protocol", "saddr", "daddr")}
        family = "ip" if ip_address(source).version == 4 else "ip6"
        return self.reach(interface=interface, family=family).ports(packets)

    @property
    def redirections(self) -> Sequence[str]:
        """Rules that send incoming packets to another port or address."""
        return [
            rule.text
            for chain in self._chains()
            for rule in chain.rules
            if any(isinstance(step, Nat) for step in _all_steps(rule.steps))
            or any(w in rule.text for w in ("tproxy ", "-j TPROXY"))
        ]

    @property
    def forward_policies(self) -> Sequence[str]:
        """The policies of the base chains that forwarded packets go through."""
        return [c.policy.value for c in self._chains() if c.hook == "forward" and c.kind != "nat"]

    def _walk(self, interface: str, family: str, cast: Cast) -> tuple[Reach, tuple[Outcome, ...]]:
        key = (family, cast, self._looks_like(interface))
        if key not in self._walks:
            number = _FAMILIES[family]
            broadcasts = self.surroundings.broadcast_addresses()
            box = strangers_box(number, cast, broadcasts)
            start = Start(family=number, interface=interface, box=box, cast=cast)
            outcomes = tuple(walk(self.tables, self.surroundings, start))
            self._walks[key] = (Reach.of(number, box, outcomes), outcomes)
        return self._walks[key]

    def _looks_like(self, interface: str) -> object:
        """Return what the rules can tell of an interface: interfaces that look alike are walked
        once.
        """
        named = self._interface_names()
        return tuple(
            (
                tuple(
                    step.name.startswith(n[:-1]) if n.endswith("*") else step.name == n
                    for n in named
                ),
                tuple(
                    step.name in c.devices
                    for c in self._chains()
                    if c.hook == "ingress" and c.devices
                ),
                step.name if self._redirects() else "",
                (step.master, step.master_kind, step.device_kind),
            )
            for step in self.surroundings.way_in(interface)
        )

    def _redirects(self) -> bool:
        return any(
            isinstance(step, Nat) and step.is_redirect
            for chain in self._chains()
            for rule in chain.rules
            for step in _all_steps(rule.steps)
        )

    def _interface_names(self) -> tuple[str, ...]:
        return tuple(
            sorted({n for t in self._tests() if t.dimension in ("iif", "ibr") for n in t.names})
        )

    def _chains(self) -> Iterator[Chain]:
        for chains in self.tables.values():
            yield from chains.values()

    def _tests(self) -> Iterator[Test]:
        rules = [rule for chain in self._chains() for rule in chain.rules]
        for rule in (*rules, *(policy.rule for policy in self.surroundings.policies)):
            for step in _all_steps(rule.steps):
                if isinstance(step, Match):
                    for tests in step.alternatives:
                        yield from tests
                elif isinstance(step, Choose):
                    for branch in step.branches:
                        yield from branch.tests


def _all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if isinstance(step, Choose):
            for branch in step.branches:
                yield from _all_steps(branch.steps)


def _frames_of(protocol: str, source: str, destination: str) -> dict[str, Spans]:
    """Return the class of a prober's own packets: without data and options, 64 hops, no mark."""
    version = ip_address(source).version
    size = {"tcp": 20, "udp": 8}[protocol]
    packets = {
        "protocol": only(PROTOCOLS[protocol]),
        "saddr": only(int(ip_address(source))),
        "daddr": only(int(ip_address(destination))),
        "meta.length": only(size + (20 if version == 4 else 40)),
    }
    if version == 4:
        own = {"ip.ttl": 64, "ip.dscp": 0, "ip.ecn": 0, "ip.length": 20 + size}
    else:
        own = {"ip6.hoplimit": 64, "ip6.dscp": 0, "ip6.ecn": 0, "ip6.length": size}
    return packets | {dimension: only(value) for dimension, value in own.items()}


def _drops(chain: Chain) -> bool:
    verdicts = [rule.verdict for rule in chain.rules]
    return chain.policy is Verdict.DROP or Verdict.DROP in verdicts or Verdict.REJECT in verdicts


def _holds(spans: Spans | None, number: int) -> bool:
    return spans is None or any(first <= number <= last for first, last in spans)
