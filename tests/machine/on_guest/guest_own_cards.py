"""A VM on its own has the network cards that its host names, each on a network with a stranger, so
that addresses and firewall rules by interface are real. Run by test_vm_cluster.py.
"""

from __future__ import annotations

from pytest_nixos import Machine, PortState, Survey

DOOR = 8080


def test_cards_have_their_names_and_addresses(nixos_machine: Machine) -> None:
    seen = nixos_machine.run("ip -o -4 address show scope global").stdout_text
    by_name = {line.split()[1]: line.split()[3] for line in seen.splitlines()}
    assert by_name == {
        "enp3s0": "192.168.7.1/24",
        "wan0": "198.51.100.1/24",
    }
    assert not nixos_machine.run("systemctl --failed --no-legend").stdout_text.strip()


def test_the_firewall_opens_the_door_on_one_card_alone(nixos_machine: Machine) -> None:
    views = nixos_machine.survey(Survey(tcp=[DOOR], patient_tcp=[DOOR]))
    seen = {view.interface: view.tcp[DOOR] for view in views if view.family == "ip"}
    assert seen == {"enp3s0": PortState.OPEN, "wan0": PortState.FILTERED}
    assert nixos_machine.probe_tcp([DOOR]) == {DOOR: PortState.OPEN}
