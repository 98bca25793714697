"""Service tiers: what is declared open on one interface cannot be reached on another network."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, PortState, Survey, not_applicable

from .opened import ranges_on
from .ports import FAMILIES, covers

_MOST = 2000
_SURVEY_LIMIT_S = 300.0


@pytest.mark.nixos_control("NET-018")
def test_ports_of_other_tiers_are_closed_to_a_stranger(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    firewall = nixos_host_config.firewall
    if not firewall.enabled:
        not_applicable("the firewall is off; FW-001 judges that")
    inner = {
        port: name
        for name, ports in firewall.interfaces.items()
        for span in ports.tcp
        for port in range(span.first, min(span.last, span.first + _MOST) + 1)
        if name != "lo" and not covers(firewall.everywhere.tcp, port)
    }
    if not inner:
        not_applicable("no TCP port is open on some interfaces only")
    if not nixos_machine.can_survey:
        not_applicable("no stranger of ours can stand on this machine's networks")
    ports = sorted(inner)
    views = nixos_machine.survey(Survey(tcp=ports, patient_tcp=ports), timeout_s=_SURVEY_LIMIT_S)
    asked = {
        f"{view.interface}, {FAMILIES[view.family]}": (
            view,
            [p for p in ports if not covers(ranges_on(firewall, "tcp", view.interface), p)],
        )
        for view in views
        if view.interface not in firewall.trusted_interfaces
    }
    nixos_evidence.expect(
        {where: dict.fromkeys(p, "closed or filtered") for where, (_, p) in asked.items()}
    )
    nixos_evidence.observe(
        {where: {port: view.tcp[port].value for port in p} for where, (view, p) in asked.items()}
    )
    if not any(closed for _, closed in asked.values()):
        not_applicable("every network that a stranger can stand on is one that the ports are for")
    reached = {
        where: found
        for where, (view, p) in asked.items()
        if (found := [port for port in p if view.tcp[port] is PortState.OPEN])
    }
    assert not reached, f"declared for another network, and reached from this one: {reached}"
