"""What strangers reach: the outcomes of a walk, put together into openings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.nix.config.declared import PortRange
from pytest_nixos.observe.firewall.boxes import (
    Box,
    by_sources,
    count,
    cut_box,
    meet_boxes,
    merged_boxes,
)
from pytest_nixos.observe.firewall.classes import Doubt, Outcome
from pytest_nixos.observe.firewall.model import Reason, universe
from pytest_nixos.observe.firewall.opening import (
    PORT_PROTOCOLS,
    Decision,
    Opening,
    PortJudgement,
    rule_text,
)
from pytest_nixos.observe.firewall.spans import (
    Spans,
    cut,
    joined,
    listed_addresses,
    listed_numbers,
    meet,
    whole,
)

__all__ = ["Reach"]

_ICMP = (1, 58)
_OTHER_ICMP = {4: 58, 6: 1}
_LAST_PORT = 65535
_MOST_MERGED = 400
# Dimensions that have a place of their own in an opening, or say nothing about it.
_PLACED = frozenset({"family", "protocol", "dport", "saddr", "daddr", "ethertype", "tcp.flags"})


@dataclass(frozen=True, slots=True)
class _Piece:
    box: Box
    decision: Decision
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What becomes of every packet that comes through one interface.

    :param start: the packets that were asked about.
    """

    family: int
    start: Box
    pieces: tuple[_Piece, ...]

    @classmethod
    def of(cls, family: int, start: Box, outcomes: Sequence[Outcome]) -> Reach:
        """Put the outcomes of a walk together."""
        return cls(family=family, start=start, pieces=tuple(_merged(_settle(outcomes))))

    def judge(self, packets: Box) -> tuple[Decision, tuple[str, ...]]:
        """Tell what becomes of all `packets`, and the rules that decide.

        :return: ``CONDITIONAL`` also where only some of them are accepted.
        """
        found = [p for p in self.pieces if meet_boxes(p.box, packets, self.start) is not None]
        accepting = [p for p in found if p.decision is not Decision.REFUSED]
        rules = _rules(accepting or found)
        kinds = {p.decision for p in found}
        if not accepting:
            return Decision.REFUSED, rules
        if Decision.UNKNOWN in kinds:
            return Decision.UNKNOWN, rules
        return (Decision.ACCEPTED if kinds == {Decision.ACCEPTED} else Decision.CONDITIONAL), rules

    def at(self, packet: Mapping[str, int]) -> tuple[Decision, tuple[str, ...]]:
        """Tell what becomes of one packet, given by the value of each of its dimensions, and the
        rules that decide.
        """
        return self.judge({d: ((v, v),) for d, v in packet.items()})

    def senders_let_in(self, packets: Box) -> Spans:
        """Return who may send some of `packets`, perhaps up to a limit or where that cannot be
        told.
        """
        found = [
            both.get("saddr", self.start["saddr"])
            for piece in self.pieces
            if piece.decision is not Decision.REFUSED
            and (both := meet_boxes(piece.box, packets, self.start)) is not None
        ]
        return joined(span for senders in found for span in senders)

    def ports(self, packets: Box) -> Sequence[PortJudgement]:
        """Tell for each destination port what becomes of `packets`, as far as they are the same
        for a port.

        A port may be in several: where it depends on what `packets` leave open.
        """
        found = []
        for piece in self.pieces:
            both = meet_boxes(piece.box, packets, self.start)
            if both is None:
                continue
            outcome = piece.outcome
            found.append(
                PortJudgement(
                    ports=both.get("dport", whole(_LAST_PORT)),
                    decision=piece.decision,
                    rules=_rules([piece]),
                    answered=outcome.answered,
                    forwarded=outcome.forwarded,
                )
            )
        return found

    def openings(self) -> Sequence[Opening]:
        """Return every way in, each once for each rule that opens it."""
        groups: dict[tuple[object, ...], list[tuple[Spans, Spans]]] = {}
        blanks: dict[tuple[object, ...], Opening] = {}
        for piece in self.pieces:
            if piece.decision is Decision.REFUSED:
                continue
            for blank, ports, sources in self._openings_of(piece):
                key: tuple[object, ...] = (
                    *(blank.protocol, blank.protocols, blank.decision, blank.destinations),
                    *(blank.details, blank.rules, blank.target, blank.why),
                )
                blanks.setdefault(key, blank)
                groups.setdefault(key, []).append((ports, sources))
        found = []
        for key, pairs in groups.items():
            for ports, sources in by_sources(pairs):
                found.append(self._filled(blanks[key], ports, sources))
        return found

    def open_ports(self, protocol: int, decisions: Collection[Decision]) -> Sequence[PortRange]:
        """Return the ports on which anybody's packet is judged as one of `decisions`; adjacent
        ranges are joined.
        """
        pairs = []
        for piece in self.pieces:
            if piece.decision not in decisions:
                continue
            for blank, ports, sources in self._openings_of(piece):
                if blank.protocol == protocol and not blank.details and blank.destinations is None:
                    pairs.append((ports, sources))
        opened = [
            span
            for ports, sources in by_sources(pairs)
            if self._is_most("saddr", sources)
            for span in ports
        ]
        return [PortRange(first=a, last=b) for a, b in joined(opened)]

    def _openings_of(self, piece: _Piece) -> Iterator[tuple[Opening, Spans, Spans]]:
        protocols = piece.box.get("protocol", whole(255))
        details = tuple(
            (dimension, values)
            for dimension, values in piece.box.items()
            if dimension not in _PLACED and not self._is_most(dimension, values)
        )
        destinations = piece.box.get("daddr")
        if destinations is not None and self._is_most("daddr", destinations):
            destinations = None
        outcome = piece.outcome
        base = {
            "family": self.family,
            "decision": piece.decision,
            "destinations": destinations,
            "rules": _rules([piece]),
            "target": _target(outcome, self.family),
            "forwarded": outcome.forwarded,
            "why": "; ".join(dict.fromkeys(d.about for d in outcome.doubts)),
        }
        if piece.decision is Decision.ACCEPTED:
            base["why"] = ""
        sources = piece.box.get("saddr", self.start["saddr"])
        rest = protocols
        for protocol in (*PORT_PROTOCOLS, *_ICMP):
            number = ((protocol, protocol),)
            if not meet(rest, number):
                continue
            rest = cut(rest, number)
            if protocol == _OTHER_ICMP[self.family]:
                continue  # nobody listens to the other family's messages
            ports = piece.box.get("dport", whole(_LAST_PORT))
            own = _own_details(details, protocol)
            yield (
                Opening(protocol=protocol, details=own, **base),  # type: ignore[arg-type]
                ports if protocol in PORT_PROTOCOLS else whole(_LAST_PORT),
                sources,
            )
        if rest:
            blank = Opening(
                protocol=-1,
                protocols=rest,
                details=_own_details(details, -1),
                **base,  # type: ignore[arg-type]
            )
            yield blank, whole(_LAST_PORT), sources

    def _filled(self, blank: Opening, ports: Spans, sources: Spans) -> Opening:
        ranges = tuple(PortRange(first=a, last=b) for a, b in ports)
        return Opening(
            family=blank.family,
            decision=blank.decision,
            protocol=blank.protocol,
            ports=ranges if blank.protocol in PORT_PROTOCOLS else (),
            protocols=blank.protocols,
            sources=None if self._is_most("saddr", sources) else sources,
            destinations=blank.destinations,
            details=blank.details,
            rules=blank.rules,
            target=blank.target,
            forwarded=blank.forwarded,
            why=blank.why,
        )

    def _is_most(self, dimension: str, values: Spans) -> bool:
        """Whether `values` are more than half of all, so that the rest is the exception."""
        return 2 * count(values) > count(self.start.get(dimension) or universe(dimension))


def _settle(outcomes: Sequence[Outcome]) -> Iterator[_Piece]:
    """Turn outcomes into decisions: what is accepted whichever way a doubt goes is accepted."""
    plain = [o for o in outcomes if not o.doubts]
    doubted = [o for o in outcomes if o.doubts]
    for outcome in plain:
        decision = Decision.ACCEPTED if outcome.accepted else Decision.REFUSED
        yield _Piece(outcome.box, decision, outcome)
    refusing = [o for o in doubted if not o.accepted]
    accepting = [o for o in doubted if o.accepted]
    for outcome in accepting:
        sure: list[Box] = [outcome.box]
        for other in refusing:
            both = meet_boxes(outcome.box, other.box, {})
            if both is None:
                continue
            sure = [part for box in sure for part in cut_box(box, other.box)]
            yield _Piece(both, _kind(outcome.doubts), outcome)
        for box in sure:
            yield _Piece(box, Decision.ACCEPTED, outcome)
    for outcome in refusing:
        left: list[Box] = [outcome.box]
        for other in accepting:
            left = [part for box in left for part in cut_box(box, other.box)]
        for box in left:
            yield _Piece(box, Decision.REFUSED, outcome)


def _merged(pieces: Iterable[_Piece]) -> Iterator[_Piece]:
    """Put pieces of one rule together that differ in one dimension only: the walk cut them
    apart.
    """
    groups: dict[tuple[object, ...], list[_Piece]] = {}
    for piece in pieces:
        outcome = piece.outcome
        key: tuple[object, ...] = (
            *(piece.decision, outcome.rules, outcome.policy, outcome.doubts),
            *(outcome.address, outcome.port, outcome.forwarded, outcome.answered),
        )
        groups.setdefault(key, []).append(piece)
    for group in groups.values():
        boxes = [dict(piece.box) for piece in group]
        if len(boxes) <= _MOST_MERGED:
            boxes = merged_boxes(boxes)
        for box in boxes:
            yield _Piece(box, group[0].decision, group[0].outcome)


def _kind(doubts: Iterable[Doubt]) -> Decision:
    unknown = any(d.reason is Reason.UNKNOWN for d in doubts)
    return Decision.UNKNOWN if unknown else Decision.CONDITIONAL


def _own_details(
    details: tuple[tuple[str, Spans], ...], protocol: int
) -> tuple[tuple[str, Spans], ...]:
    """Leave out what other protocols have and this one has not."""
    owners = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58, "sctp": 132}
    ports = protocol in PORT_PROTOCOLS
    return tuple(
        (dimension, values)
        for dimension, values in details
        if owners.get(dimension.split(".")[0], protocol) == protocol
        and (ports or dimension != "sport")
    )


def _rules(pieces: Iterable[_Piece]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for piece in pieces:
        outcome = piece.outcome
        telling = [r for r in outcome.rules if r.is_telling] or list(outcome.rules[-1:])
        for rule in telling:
            found.setdefault(rule_text(rule))
        for doubt in outcome.doubts:
            # Where nobody can tell, a rule that may refuse is as much to be looked at.
            open_question = piece.decision is Decision.UNKNOWN and doubt.reason is Reason.UNKNOWN
            if (doubt.holds or open_question) and doubt.rule.text:
                found.setdefault(rule_text(doubt.rule))
        if not telling and outcome.policy:
            found.setdefault(outcome.policy)
    return tuple(found)


def _target(outcome: Outcome, family: int) -> str:
    if not outcome.forwarded:
        return f"this host:{listed_numbers(outcome.port)}" if outcome.port else ""
    where = listed_addresses(outcome.address, family) if outcome.address else "an unknown address"
    if family == 6 and outcome.port is not None and outcome.address:
        where = f"[{where}]"
    return f"{where}:{listed_numbers(outcome.port)}" if outcome.port else where
