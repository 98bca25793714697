"""What a stranger outside sees of the guest, and whether the ruleset says the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from pytest_nixos import (
    Machine,
    Observations,
    PortRange,
    PortState,
    Survey,
    View,
    observe,
)

from .ports import FAMILIES

__all__ = ["Disagreement", "disagreements", "look", "reached"]

_EVERY_PORT = range(1, 65536)
_LAST_PORT = 65535
# What a live host is tried with, where no stranger of ours can stand: the well-known ports and
# databases, message brokers, model servers, container engines, monitoring.
_TEMPTING_PORTS = (
    *range(1, 1025),
    *(1433, 1521, 1883, 2049, 2375, 2376, 2379, 3000, 3306, 3389, 4222, 5000, 5432, 5672, 5900),
    *(5985, 6222, 6333, 6379, 6443, 7777, 8000, 8080, 8222, 8443, 8888, 9000, 9090, 9091, 9100),
    *(9200, 9418, 10250, 11211, 11434, 15672, 19999, 27017, 50000),
)
_MOST_UDP = 40
# As many as a live host is tried with at once; see pytest_nixos.machine.ssh.
_MOST_LIVE = 4096
_MOST_AGAIN = 256
_UDP = 17
_SURVEY_LIMIT_S = 600.0


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """Ports on which the stranger's view and the ruleset do not agree."""

    protocol: str
    ports: tuple[PortRange, ...]
    view: View
    seen: PortState
    said: observe.Decision
    rules: tuple[str, ...]

    def __str__(self) -> str:
        ports = ", ".join(str(span) for span in self.ports)
        where = f"{FAMILIES[self.view.family]} on {self.view.interface}"
        rules = f": {' -> '.join(self.rules)}" if self.rules else ""
        return (
            f"{self.protocol} {ports} over {where} is {self.seen.value} from outside,"
            f" and {self.said.value} by the rules{rules}"
        )


def look(
    machine: Machine, observations: Observations, state: observe.FirewallState
) -> tuple[View, ...]:
    """Try the guest from outside: every TCP port and chosen UDP ports by both families, where
    its backend can.
    """
    sockets = observations.of(observe.sockets())
    listening = sockets.reachable_ports(observe.Protocol.TCP)
    named = _named_ports(state)
    tried = sorted({*_TEMPTING_PORTS, *listening, *named.get(6, ())} - {0})
    if machine.can_survey and machine.backend.name.value == "ssh":
        views = machine.survey(Survey(tcp=tried[:_MOST_LIVE]), timeout_s=_SURVEY_LIMIT_S)
        return tuple(
            v if v.interface else replace(v, interface=_outer_interface(machine)) for v in views
        )
    if machine.can_survey:
        udp = sorted({*sockets.reachable_ports(observe.Protocol.UDP), *named.get(_UDP, ())})
        patient = sorted({*listening, *named.get(6, ())})
        wanted = Survey(tcp=_EVERY_PORT, patient_tcp=patient, udp=udp[:_MOST_UDP])
        return machine.survey(wanted, timeout_s=_SURVEY_LIMIT_S)
    found = machine.probe_tcp(tried)
    return (View(interface=_outer_interface(machine), family="ip", tcp=found),)


def reached(view: View) -> list[int]:
    """Return the TCP ports that answered."""
    return sorted(port for port, state in view.tcp.items() if state is PortState.OPEN)


def disagreements(
    machine: Machine, state: observe.FirewallState, views: Sequence[View]
) -> list[Disagreement]:
    """Hold the views against the ruleset; what may be a lost packet is tried again before it
    counts.
    """
    found = [d for view in views for d in _of_view(state, view)]
    silent = sorted(
        {
            port
            for one in found
            if one.protocol == "tcp" and one.seen is PortState.FILTERED
            for span in one.ports
            for port in range(span.first, span.last + 1)
        }
    )
    if not silent:
        return found
    again = silent[:_MOST_AGAIN]
    second = machine.survey(Survey(tcp=again, patient_tcp=again), timeout_s=_SURVEY_LIMIT_S)
    kept = [d for d in found if d.seen is not PortState.FILTERED or d.protocol != "tcp"]
    # The first look tells whether the guest answers by this family at all.
    alive = {(v.interface, v.family) for v in views if _is_alive(v)}
    second = tuple(v for v in second if (v.interface, v.family) in alive)
    lost = [d for view in second for d in _of_view(state, view, is_alive=True)]
    return kept + [d for d in lost if d.seen is PortState.FILTERED]


def _of_view(
    state: observe.FirewallState, view: View, *, is_alive: bool | None = None
) -> Iterator[Disagreement]:
    alive = _is_alive(view) if is_alive is None else is_alive
    silence_tells = alive and not state.ruleset.may_drop_replies
    for protocol, ports in (("tcp", view.tcp), ("udp", view.udp)):
        if not ports or view.stranger is None or view.guest is None:
            continue
        judged = _by_port(state, view, protocol)
        groups: dict[tuple[PortState, observe.PortJudgement], list[int]] = {}
        for port, seen in ports.items():
            said = judged.get(port)
            if said is not None and _contradicts(protocol, seen, said, silence_tells=silence_tells):
                groups.setdefault((seen, said), []).append(port)
        for (seen, said), wrong in groups.items():
            yield Disagreement(
                protocol=protocol,
                ports=_ranges(wrong),
                view=view,
                seen=seen,
                said=said.decision,
                rules=said.rules,
            )


def _by_port(
    state: observe.FirewallState, view: View, protocol: str
) -> Mapping[int, observe.PortJudgement]:
    """Return the judgement of each port that has a plain one: not conditional, not unknown, the
    same for all our packets.
    """
    found: dict[int, observe.PortJudgement | None] = {}
    judgements = state.ruleset.judge_ports(
        protocol=protocol,
        source=str(view.stranger),
        destination=str(view.guest),
        interface=view.interface,
        own_frames=view.own_frames,
    )
    for judgement in judgements:
        for first, last in judgement.ports:
            for port in range(first, last + 1):
                other = found.get(port, judgement)
                found[port] = other if other and _same(other, judgement) else None
    return {
        port: judgement
        for port, judgement in found.items()
        if judgement is not None
        and judgement.decision in (observe.Decision.ACCEPTED, observe.Decision.REFUSED)
    }


def _same(one: observe.PortJudgement, other: observe.PortJudgement) -> bool:
    return (one.decision, one.answered, one.forwarded) == (
        other.decision,
        other.answered,
        other.forwarded,
    )


def _contradicts(
    protocol: str, seen: PortState, said: observe.PortJudgement, *, silence_tells: bool
) -> bool:
    if said.decision is observe.Decision.REFUSED:
        # A rule that rejects answers as a port without a listener does.
        return seen is PortState.OPEN or (seen is PortState.CLOSED and not said.answered)
    # Who stands behind the guest, or listens to UDP, may be silent.
    plain = protocol == "tcp" and not said.forwarded
    return plain and silence_tells and seen is PortState.FILTERED


def _is_alive(view: View) -> bool:
    """Whether the guest answers by this family at all; it cannot where it may not ask for our
    address.
    """
    return view.answers_ping or any(s is not PortState.FILTERED for s in view.tcp.values())


def _named_ports(state: observe.FirewallState) -> Mapping[int, set[int]]:
    """Return the ends of the ranges that rules open, by protocol."""
    found: dict[int, set[int]] = {}
    for interface in (observe.STRANGER, *state.ruleset.interfaces):
        for family in FAMILIES:
            for opening in state.ruleset.reach(interface=interface, family=family).openings():
                ends = {end for span in opening.ports for end in (span.first, span.last)}
                found.setdefault(opening.protocol, set()).update(ends - {0, _LAST_PORT})
    return found


def _ranges(ports: Sequence[int]) -> tuple[PortRange, ...]:
    found: list[PortRange] = []
    for port in sorted(ports):
        if found and found[-1].last == port - 1:
            found[-1] = PortRange(first=found[-1].first, last=port)
        else:
            found.append(PortRange(first=port, last=port))
    return tuple(found)


def _outer_interface(machine: Machine) -> str:
    """Return the interface that faces the host machine: the first with a route."""
    rows = machine.run("cat /proc/net/route").stdout_text.splitlines()[1:]
    names = [row.split()[0] for row in rows if row.split()]
    assert names, "the guest has no network route, so nothing outside can reach it"
    return names[0]
