"""Firewall: what the host declares, what the ruleset says, and what a stranger outside gets."""

from __future__ import annotations

import pytest

from pytest_nixos import (
    Evidence,
    Firewall,
    HostConfig,
    Machine,
    Observations,
    PortRange,
    PortState,
    not_applicable,
    observe,
)

from .ports import covers, declared_ranges, listed, without

# Beside what listens or is declared, a stranger tries the well-known ports and these: databases, message
# brokers, model servers, container engines, monitoring.
_TEMPTING_PORTS = (
    *(1433, 1521, 1883, 2049, 2375, 2376, 2379, 3000, 3306, 3389, 4222, 5000, 5432, 5672, 5900),
    *(5985, 6222, 6333, 6379, 6443, 7777, 8000, 8080, 8222, 8443, 8888, 9000, 9090, 9091, 9100),
    *(9200, 9418, 10250, 11211, 11434, 15672, 19999, 27017, 50000),
)
_WELL_KNOWN_PORTS = range(1, 1025)


@pytest.fixture
def declared(nixos_host_config: HostConfig) -> Firewall:
    """What the host declares; without a declared firewall there is nothing to hold the machine against."""
    if not nixos_host_config.firewall.enabled:
        not_applicable("the host declares networking.firewall.enable = false")
    return nixos_host_config.firewall


@pytest.fixture
def in_force(nixos_observations: Observations, nixos_evidence: Evidence) -> observe.FirewallState:
    """The rules in force, kept with the finding."""
    state = nixos_observations.of(observe.firewall())
    nixos_evidence.attach("ruleset", state.text)
    assert state.is_known, f"no tool in the guest shows the rules: {dict(state.tools)}"
    return state


@pytest.mark.nixos_control("FW-001")
def test_declared_firewall_is_loaded(
    declared: Firewall, in_force: observe.FirewallState, nixos_evidence: Evidence
) -> None:
    nixos_evidence.expect({"backend": declared.backend, "refuses by default": True})
    refuses = in_force.ruleset.refuses_by_default()
    nixos_evidence.observe({"units": dict(in_force.units), "refuses by default": refuses})
    assert in_force.is_active, f"no firewall unit is active: {dict(in_force.units)}"
    assert refuses, "a packet that no rule names is let in"


@pytest.mark.nixos_control("FW-002")
def test_declared_tcp_ports_are_accepted(
    declared: Firewall, in_force: observe.FirewallState, nixos_evidence: Evidence
) -> None:
    _judge_accepted(declared, in_force, nixos_evidence, "tcp")


@pytest.mark.nixos_control("FW-003")
def test_nothing_undeclared_is_accepted(
    declared: Firewall, in_force: observe.FirewallState, nixos_evidence: Evidence
) -> None:
    nixos_evidence.expect(_declared_everywhere(declared, "tcp"))
    extra = _undeclared(declared, in_force, "tcp")
    trusted = sorted({*in_force.ruleset.trusted_interfaces} - {"lo", *declared.trusted_interfaces})
    conditional = "\n".join(rule.text for rule in in_force.ruleset.extra_accepts)
    nixos_evidence.attach("rules that accept under further conditions", conditional)
    nixos_evidence.observe({"undeclared": extra, "undeclared trusted interfaces": trusted})
    assert not extra, f"accepted and not declared: {extra}"
    assert not trusted, f"trusted and not declared: {trusted}"


@pytest.mark.nixos_control("FW-004")
def test_no_undeclared_port_is_reachable_from_outside(
    declared: Firewall,
    nixos_machine: Machine,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    interface = _outer_interface(nixos_machine)
    allowed = declared_ranges(declared, "tcp", interface)
    tried = sorted({*_listening(nixos_observations), *_WELL_KNOWN_PORTS, *_TEMPTING_PORTS})
    found = nixos_machine.probe_tcp(tried)
    assert found, "the probe from outside returned nothing"
    reachable = [p for p in tried if found[p] is PortState.OPEN and not covers(allowed, p)]
    nixos_evidence.expect({"reachable": listed(allowed), "interface": interface})
    nixos_evidence.observe({"reachable and not declared": reachable, "ports tried": len(tried)})
    if interface in declared.trusted_interfaces:
        not_applicable(f"the host trusts {interface}, the interface that strangers come through")
    assert not reachable, f"reachable from outside and not declared: {reachable}"


@pytest.mark.nixos_control("FW-005")
def test_declared_ports_with_listener_are_reachable_from_outside(
    declared: Firewall,
    nixos_machine: Machine,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    allowed = declared_ranges(declared, "tcp", _outer_interface(nixos_machine))
    expected = nixos_evidence.expect(
        [port for port in _listening(nixos_observations) if covers(allowed, port)]
    )
    if not expected:
        not_applicable("nothing listens on a TCP port that the host declares open")
    found = nixos_machine.probe_tcp(expected)
    nixos_evidence.observe({port: found[port].value for port in expected})
    missing = [port for port in expected if found[port] is not PortState.OPEN]
    assert not missing, f"declared and not reachable from outside: {missing}"


@pytest.mark.nixos_control("FW-006")
def test_declared_tcp_ports_have_a_listener(
    declared: Firewall, nixos_observations: Observations, nixos_evidence: Evidence
) -> None:
    ranges = [*declared.everywhere.tcp]
    for ports in declared.interfaces.values():
        ranges += ports.tcp
    if not ranges:
        not_applicable("the host declares no open TCP port")
    listening = nixos_evidence.observe(_listening(nixos_observations))
    nixos_evidence.expect(listed(ranges))
    idle = [r for r in ranges if not any(port in r for port in listening)]
    assert not idle, f"open and without listener: {listed(idle)}"


@pytest.mark.nixos_control("FW-007")
def test_sockets_are_declared_or_blocked(
    nixos_host_config: HostConfig,
    in_force: observe.FirewallState,
    nixos_observations: Observations,
    nixos_evidence: Evidence,
) -> None:
    nixos_evidence.expect("each declared open, or refused by the ruleset")
    allowed = nixos_host_config.firewall.everywhere.tcp
    everything = [r for p in nixos_host_config.firewall.interfaces.values() for r in p.tcp]
    listening = _listening(nixos_observations)
    exposed = [
        port
        for port in listening
        if not covers([*allowed, *everything], port)
        and in_force.ruleset.judge(protocol="tcp", port=port).decision
        is not observe.Decision.REFUSED
    ]
    nixos_evidence.observe({"listening": listening, "exposed": exposed})
    assert not exposed, f"listening, not declared and not refused: {exposed}"


@pytest.mark.nixos_control("FW-008")
def test_declared_udp_ports_are_accepted_and_no_others(
    declared: Firewall, in_force: observe.FirewallState, nixos_evidence: Evidence
) -> None:
    extra = _undeclared(declared, in_force, "udp")
    _judge_accepted(declared, in_force, nixos_evidence, "udp")
    nixos_evidence.observe({"undeclared": extra})
    assert not extra, f"accepted and not declared: {extra}"


def _judge_accepted(
    declared: Firewall, in_force: observe.FirewallState, evidence: Evidence, protocol: str
) -> None:
    evidence.expect(_declared_everywhere(declared, protocol))
    missing = {}
    for interface in ("", *declared.interfaces):
        opened = _opened(in_force, protocol, interface)
        if refused := without(declared_ranges(declared, protocol, interface), opened):
            missing[interface or "all interfaces"] = listed(refused)
    evidence.observe({"declared and not accepted": missing})
    assert not missing, f"declared and not accepted: {missing}"


def _undeclared(
    declared: Firewall, in_force: observe.FirewallState, protocol: str
) -> dict[str, list[str]]:
    found = {}
    for interface in ("", *declared.interfaces):
        allowed = declared_ranges(declared, protocol, interface)
        if extra := without(_opened(in_force, protocol, interface), allowed):
            found[interface or "all interfaces"] = listed(extra)
    return found


def _opened(state: observe.FirewallState, protocol: str, interface: str) -> list[PortRange]:
    if interface:
        return list(state.ruleset.open_ports(protocol, interface=interface))
    return list(state.ruleset.open_ports(protocol))


def _declared_everywhere(declared: Firewall, protocol: str) -> dict[str, list[str]]:
    return {
        interface or "all interfaces": listed(declared_ranges(declared, protocol, interface))
        for interface in ("", *declared.interfaces)
    }


def _listening(observations: Observations) -> list[int]:
    return list(observations.of(observe.sockets()).reachable_ports(observe.Protocol.TCP))


def _outer_interface(machine: Machine) -> str:
    """Return the interface that faces the host machine: the first with a route."""
    rows = machine.run("cat /proc/net/route").stdout_text.splitlines()[1:]
    names = [row.split()[0] for row in rows if row.split()]
    assert names, "the guest has no network route, so nothing outside can reach it"
    return names[0]
