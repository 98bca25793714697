"""Service tiers: what is declared open on one interface cannot be reached on another network."""

from __future__ import annotations

import pytest

from pytest_nixos import Evidence, HostConfig, Machine, PortState, not_applicable

# The network that a stranger shares with the machine.
_OUTER = "eth0"
_MOST = 2000


@pytest.mark.nixos_control("NET-018")
def test_ports_of_other_tiers_are_closed_to_a_stranger(
    nixos_host_config: HostConfig, nixos_machine: Machine, nixos_evidence: Evidence
) -> None:
    firewall = nixos_host_config.firewall
    if not firewall.enabled:
        not_applicable("the firewall is off; FW-001 judges that")
    inner = sorted(
        {
            port
            for name, ports in firewall.interfaces.items()
            for span in ports.tcp
            for port in range(span.first, min(span.last, span.first + _MOST) + 1)
            if name not in (_OUTER, "lo") and not firewall.allows_tcp(port, interface=_OUTER)
        }
    )
    if not inner:
        not_applicable(f"no TCP port is open on other interfaces than {_OUTER} only")
    nixos_evidence.expect(dict.fromkeys(inner, "closed or filtered"))
    found = nixos_machine.probe_tcp(inner)
    nixos_evidence.observe({port: state.value for port, state in found.items()})
    reached = [port for port, state in found.items() if state is PortState.OPEN]
    assert not reached, f"declared for another network, and reached from this one: {reached}"
