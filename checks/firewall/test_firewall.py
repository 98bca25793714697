"""Firewall: what the host declares, what the ruleset says, and what a stranger outside gets."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from pytest_nixos import (
    Control,
    Evidence,
    Firewall,
    HostConfig,
    Machine,
    Observations,
    PortRange,
    View,
    not_applicable,
    observe,
)

from .declaring import remedy_of_ports, remedy_of_ways
from .idle import WhyIdle, cut_off, refused_by_unit, remedy_of_idle, told_idle
from .loaded import FILTER, failed_units, rest_on_the_filter, why_not_active, why_open
from .opened import (
    Undeclared,
    extra_rule_texts,
    hand_written,
    is_written,
    ranges_on,
    trusted_ways_out,
    undeclared,
)
from .outside import disagreements, look, reached
from .ports import FAMILIES, UDP_PROTOCOLS, covers, declared_ranges, listed
from .refused import misnamed_interfaces, refused_ports, remedy_of_refused
from .servers import servers_of, struggling
from .trusting import blame_trust, rest_on_trust, rest_reach_on_trust

# How long a service may take from its start to its socket.
_STARTING_S = 10.0
_TCP = 6


@pytest.fixture
def declared(nixos_host_config: HostConfig) -> Firewall:
    """What the host declares; without a declared firewall there is nothing to hold the machine
    against.
    """
    if not nixos_host_config.firewall.enabled:
        own = ", ".join(extra_rule_texts(nixos_host_config))
        not_applicable(
            "networking.firewall.enable is false"
            + (f", and a ruleset that is written by hand ({own}) declares no ports" if own else "")
        )
    return nixos_host_config.firewall


@pytest.fixture
def in_force(nixos_observations: Observations, nixos_evidence: Evidence) -> observe.FirewallState:
    """The rules in force, kept with the finding."""
    state = nixos_observations.of(observe.firewall())
    nixos_evidence.attach("ruleset", state.text)
    tools = {name: tool.value for name, tool in state.tools.items()}
    assert state.is_known, f"no tool in the guest shows the rules: {tools}"
    assert not state.unseen, f"the rules in force are not all known: {'; '.join(state.unseen)}"
    return state


@pytest.fixture(scope="module")
def listening(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_observations: Observations
) -> observe.Sockets:
    """The sockets once something listens on each declared TCP port, or no longer is to be expected:
    a service that has just been started is not yet one that listens.
    """
    sockets = nixos_observations.of(observe.sockets())
    deadline = nixos_machine.deadline(_STARTING_S)
    while _idle(nixos_host_config.firewall, sockets) and not deadline.expired:
        time.sleep(0.5)
        nixos_observations.renew([observe.sockets()])
        sockets = nixos_observations.of(observe.sockets())
    return sockets


@pytest.fixture(scope="module")
def outside(
    nixos_machine: Machine,
    nixos_observations: Observations,
    listening: observe.Sockets,  # noqa: ARG001 - what has not begun to listen cannot be reached
) -> tuple[View, ...]:
    """What a stranger sees, tried once for all that ask."""
    state = nixos_observations.of(observe.firewall())
    return look(nixos_machine, nixos_observations, state)


@pytest.mark.nixos_control("FW-001")
def test_declared_firewall_is_loaded(
    declared: Firewall,
    in_force: observe.FirewallState,
    nixos_host_config: HostConfig,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect({"backend": declared.backend, "refuses by default": True})
    found = {name: in_force.ruleset.default(family=family) for family, name in FAMILIES.items()}
    decisions = {name: judgement.decision.value for name, judgement in found.items()}
    nixos_evidence.observe({"units": dict(in_force.units), "by default": decisions})
    if not in_force.is_active:
        nixos_evidence.blame(*FILTER)
        nixos_evidence.blame("unit", *failed_units(in_force))
        why = why_not_active(in_force, nixos_host_config, nixos_observations, nixos_evidence)
        pytest.fail(f"no firewall unit is active: {why}", pytrace=False)
    for (name, judgement), family in zip(found.items(), FAMILIES, strict=True):
        rules = f": {' -> '.join(judgement.rules)}" if judgement.rules else ""
        assert judgement.decision is not observe.Decision.UNKNOWN, (
            f"it cannot be told what becomes of an {name} packet that no rule names{rules}"
        )
        if judgement.decision is not observe.Decision.REFUSED:
            nixos_evidence.blame(*FILTER)
            why = why_open(in_force, family, nixos_host_config, nixos_evidence)
            pytest.fail(f"an {name} packet that no rule names is let in{why}", pytrace=False)


@pytest.mark.nixos_control("FW-002")
@pytest.mark.usefixtures("declared")
def test_declared_tcp_ports_are_accepted(
    nixos_host_config: HostConfig,
    in_force: observe.FirewallState,
    nixos_evidence: Evidence,
) -> None:
    _judge_accepted(nixos_host_config, in_force, nixos_evidence, "tcp")


@pytest.mark.nixos_control("FW-003")
def test_nothing_undeclared_is_accepted(
    nixos_host_config: HostConfig,
    declared: Firewall,
    in_force: observe.FirewallState,
    listening: observe.Sockets,
    nixos_control: Control,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect(_declared_everywhere(declared, "tcp"))
    found = undeclared(declared, in_force)
    rest_on_the_filter(nixos_evidence, in_force, found)
    blame_trust(nixos_evidence, declared, in_force, _reachable(listening))
    _judge_undeclared(nixos_host_config, found, nixos_control, nixos_evidence)


@pytest.mark.nixos_control("FW-004")
def test_no_undeclared_port_is_reachable_from_outside(
    declared: Firewall,
    in_force: observe.FirewallState,
    outside: tuple[View, ...],
    nixos_evidence: Evidence,
) -> None:
    rest_on_the_filter(nixos_evidence, in_force)
    outer = trusted_ways_out(declared, in_force)
    exempt = set(declared.trusted_interfaces) - set(outer)
    allowed = {view.interface: ranges_on(declared, "tcp", view.interface) for view in outside}
    nixos_evidence.expect({name: listed(ranges) for name, ranges in allowed.items()})
    found = {
        f"{view.interface}, {FAMILIES[view.family]}": [
            port for port in reached(view) if not covers(allowed[view.interface], port)
        ]
        for view in outside
        if view.interface not in exempt
    }
    tried = {f"{v.interface}, {FAMILIES[v.family]}": len(v.tcp) for v in outside}
    nixos_evidence.observe({"reachable and not declared": found, "ports tried": tried})
    assert any(tried.values()), "the probe from outside returned nothing"
    if not found:
        names = ", ".join(allowed)
        not_applicable(f"the host trusts {names}, the interface that strangers come through")
    reachable = "; ".join(
        f"tcp {', '.join(map(str, ports))} ({where})" for where, ports in found.items() if ports
    )
    by_interface: dict[str, set[int]] = {}
    for view in outside:
        if view.interface not in exempt:
            undeclared_there = set(reached(view)) - {
                port for port in reached(view) if covers(allowed[view.interface], port)
            }
            by_interface.setdefault(view.interface, set()).update(undeclared_there)
    rest_reach_on_trust(nixos_evidence, outer, by_interface)
    if reachable and not nixos_evidence.remedy:
        nixos_evidence.remedy = remedy_of_ports(by_interface, undeclared(declared, in_force))
    assert not reachable, f"reachable from outside and not declared: {reachable}"


@pytest.mark.nixos_control("FW-005")
def test_declared_ports_with_listener_are_reachable_from_outside(
    declared: Firewall,
    in_force: observe.FirewallState,
    outside: tuple[View, ...],
    listening: observe.Sockets,
    nixos_evidence: Evidence,
) -> None:
    allowed = [span for view in outside for span in ranges_on(declared, "tcp", view.interface)]
    expected = nixos_evidence.expect(
        [port for port in _reachable(listening) if covers(allowed, port)]
    )
    if not expected:
        not_applicable("nothing listens on a TCP port that the host declares open")
    answering = {port for view in outside for port in reached(view)}
    nixos_evidence.observe({port: port in answering for port in expected})
    missing = [port for port in expected if port not in answering]
    by_rules = [
        one
        for one in (refused_ports(declared, in_force, "tcp") if missing else [])
        if any(port in one.ports for port in missing)
    ]
    if all(any(port in one.ports for one in by_rules) for port in missing):
        nixos_evidence.rest_on("port", *(one.subject for one in by_rules))
        nixos_evidence.remedy = remedy_of_refused(by_rules)
    assert not missing, f"declared and not reachable from outside: {missing}"


@pytest.mark.nixos_control("FW-009")
def test_ruleset_and_stranger_agree(
    nixos_machine: Machine,
    in_force: observe.FirewallState,
    outside: tuple[View, ...],
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect("what the rules let in is what a stranger gets")
    compared = [view for view in outside if view.stranger is not None]
    if not compared:
        not_applicable(
            "nobody knows what address this host's strangers have"
            if nixos_machine.can_survey
            else "a live host's rules are held against its ports only with --nixos-allow-live-switch"
        )
    found = disagreements(nixos_machine, in_force, compared)
    seen = {
        f"{view.interface}, {FAMILIES[view.family]}, from {view.stranger}": {
            "tcp ports tried": len(view.tcp),
            "tcp ports that answer": reached(view),
            "udp": {port: state.value for port, state in view.udp.items()},
            "ping": view.answers_ping,
        }
        for view in compared
    }
    nixos_evidence.observe({"seen": seen, "disagreements": [str(one) for one in found]})
    assert not found, "; ".join(str(one) for one in found)


@pytest.mark.nixos_control("FW-006")
def test_declared_tcp_ports_have_a_listener(
    nixos_host_config: HostConfig,
    nixos_machine: Machine,
    nixos_observations: Observations,
    declared: Firewall,
    listening: observe.Sockets,
    nixos_evidence: Evidence,
) -> None:
    ranges = _every_range(declared)
    if not ranges:
        not_applicable("the host declares no open TCP port")
    nixos_evidence.expect(listed(ranges))
    nixos_evidence.observe(_reachable(listening))
    alone = cut_off(nixos_host_config)
    why = WhyIdle(listening, alone)
    idle = _idle(declared, listening)
    if idle:
        states = nixos_observations.of(observe.declared_states(nixos_host_config))
        down = struggling(nixos_host_config, states)
        why = replace(why, servers=servers_of(idle, nixos_host_config, down, nixos_machine))
    idle += [ports for ports in refused_by_unit(ranges, alone) if ports not in idle]
    if idle and all(ports in why.servers for ports in idle):
        nixos_evidence.rest_on(
            "unit", *sorted({n for names in why.servers.values() for n in names})
        )
    nixos_evidence.remedy = remedy_of_idle(idle, why)
    assert not idle, f"open and without listener: {', '.join(told_idle(idle, why))}"


@pytest.mark.nixos_control("FW-007")
def test_sockets_are_declared_or_blocked(
    nixos_host_config: HostConfig,
    in_force: observe.FirewallState,
    listening: observe.Sockets,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect("each declared open, or refused by the ruleset")
    found = undeclared(nixos_host_config.firewall, in_force)
    if nixos_host_config.firewall.enabled:
        rest_on_the_filter(nixos_evidence, in_force, found)
    texts = extra_rule_texts(nixos_host_config) if hand_written(nixos_host_config) else {}
    exposed: dict[str, list[str]] = {}
    named: dict[str, list[str]] = {}
    for socket in listening.listening(observe.Protocol.TCP):
        ways = [] if socket.is_loopback else [way for way in found if _leads_to(way, socket)]
        for way in ways:
            kept = named if is_written(way, texts) else exposed
            kept.setdefault(f"tcp {socket.port}", []).append(str(way))
    nixos_evidence.observe(
        {
            "listening": _reachable(listening),
            "exposed": exposed,
            "opened by a ruleset of the host's own": named,
        }
    )
    rest_on_trust(nixos_evidence, nixos_host_config.firewall, in_force, found)
    words = [f"{port} ({'; '.join(dict.fromkeys(ways))})" for port, ways in exposed.items()]
    assert not exposed, f"listening, not declared and not refused: {', '.join(words)}"
    if named:
        not_applicable(
            f"{', '.join(named)} is opened by a ruleset that is written by hand"
            f" ({', '.join(texts)}), in place of the NixOS firewall's declaration; no other socket is exposed"
        )


@pytest.mark.nixos_control("FW-008")
def test_declared_udp_ports_are_accepted_and_no_others(
    nixos_host_config: HostConfig,
    declared: Firewall,
    in_force: observe.FirewallState,
    nixos_control: Control,
    nixos_evidence: Evidence,
) -> None:
    _judge_accepted(nixos_host_config, in_force, nixos_evidence, "udp")
    found = undeclared(declared, in_force, protocols=UDP_PROTOCOLS)
    rest_on_the_filter(nixos_evidence, in_force, found)
    rest_on_trust(nixos_evidence, declared, in_force, found)
    _judge_undeclared(nixos_host_config, found, nixos_control, nixos_evidence)


def _judge_undeclared(
    host: HostConfig, found: list[Undeclared], control: Control, evidence: Evidence
) -> None:
    """Fail on what is neither declared nor, where the profile says so, written in the host's own
    rules.
    """
    texts = extra_rule_texts(host)
    written = [way for way in found if is_written(way, texts)]
    counts = bool(control.parameters().get("extra-rules-are-declared"))
    unknown = [w for w in found if w.opening.decision is observe.Decision.UNKNOWN]
    extra = [w for w in found if not (counts and w in written) or w in unknown]
    evidence.observe(
        {
            "undeclared": [str(way) for way in extra],
            "opened by rules that the host declares as text": [str(way) for way in written],
        }
    )
    if extra and not evidence.remedy:
        evidence.remedy = remedy_of_ways(extra)
    assert not extra, f"accepted and not declared: {'; '.join(str(way) for way in extra)}"


def _judge_accepted(
    host: HostConfig, in_force: observe.FirewallState, evidence: Evidence, protocol: str
) -> None:
    declared = host.firewall
    evidence.expect(_declared_everywhere(declared, protocol))
    refused = refused_ports(declared, in_force, protocol)
    evidence.observe({"declared and not accepted": [str(one) for one in refused]})
    evidence.blame("port", *(one.subject for one in refused))
    evidence.remedy = remedy_of_refused(refused)
    assert not refused, f"declared and not accepted: {'; '.join(str(one) for one in refused)}"
    known = {card.name for card in host.cards} | {v.name for c in host.cards for v in c.vlans}
    known |= {interface.name for interface in in_force.ruleset.surroundings.interfaces}
    misnamed = misnamed_interfaces(declared, protocol, known - {""})
    evidence.remedy = "\n".join(
        f'# Name the interface that is there: networking.firewall.interfaces."{meant}", not "{name}".'
        for name, meant in misnamed.items()
    )
    told = [f"{name} (there is {meant})" for name, meant in misnamed.items()]
    assert not misnamed, (
        f"{protocol} ports are open on interfaces that are not there: {', '.join(told)}"
    )


def _leads_to(way: Undeclared, socket: observe.InetSocket) -> bool:
    """Whether a way in reaches a socket of TCP."""
    if way.opening.forwarded:
        return False
    if not way.is_everything:
        of_tcp = way.opening.protocol == _TCP
        if not of_tcp or not covers(list(way.opening.ports), socket.port):
            return False
    families = {"ip6" if ":" in socket.address else "ip"}
    if socket.dual_stack:
        families = {"ip", "ip6"}
    return any(family in families for _, family in way.places)


def _declared_everywhere(declared: Firewall, protocol: str) -> dict[str, list[str]]:
    return {
        interface or "all interfaces": listed(declared_ranges(declared, protocol, interface))
        for interface in ("", *declared.interfaces)
    }


def _reachable(sockets: observe.Sockets) -> list[int]:
    return list(sockets.reachable_ports(observe.Protocol.TCP))


def _every_range(declared: Firewall) -> list[PortRange]:
    return [*declared.everywhere.tcp, *(r for p in declared.interfaces.values() for r in p.tcp)]


def _idle(declared: Firewall, sockets: observe.Sockets) -> list[PortRange]:
    """Return the declared ports on which nothing listens that could be reached."""
    ports = _reachable(sockets)
    return [r for r in _every_range(declared) if not any(port in r for port in ports)]
