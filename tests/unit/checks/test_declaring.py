"""The remedy of a way in names its own ports, and its own interfaces."""

from __future__ import annotations

from checks.firewall.declaring import remedy_of_ports, remedy_of_ways
from checks.firewall.opened import undeclared
from tests.unit.checks.test_firewall import DECLARED, state


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_each_way_is_declared_where_it_is_open() -> None:
    said = lines(remedy_of_ways(undeclared(DECLARED, state())))
    assert said == [
        "networking.firewall.allowedTCPPorts = [ 2222 9101 ];",
        "networking.firewall.allowedTCPPortRanges = [ { from = 40000; to = 65535; } ];",
        'networking.firewall.interfaces."eth0".allowedTCPPortRanges = [ { from = 9102; to = 9103; } ];',
        'networking.firewall.interfaces."wg0".allowedTCPPorts = [ 9200 ];',
    ]
    assert lines(remedy_of_ways(undeclared(DECLARED, state(), protocols=(17, 136)))) == [
        "networking.firewall.allowedUDPPorts = [ 5353 ];"
    ]


def test_what_no_declaration_says_is_to_be_removed() -> None:
    odd = [
        w for w in undeclared(DECLARED, state()) if w.opening.sources or w.opening.protocol == 132
    ]
    assert odd
    said = remedy_of_ways(odd)
    assert "Remove the rule" in said and not lines(said)


def test_ports_that_a_stranger_reached() -> None:
    assert lines(remedy_of_ports({"eth0": {80}, "eth1": {80, 81, 82}})) == [
        "networking.firewall.allowedTCPPorts = [ 80 ];",
        'networking.firewall.interfaces."eth1".allowedTCPPorts = [ 81 82 ];',
    ]
    assert lines(remedy_of_ports({"eth0": set(), "eth1": {82}})) == [
        'networking.firewall.interfaces."eth1".allowedTCPPorts = [ 82 ];'
    ]


def test_a_port_that_is_sent_on_is_open_whatever_is_declared() -> None:
    found = undeclared(DECLARED, state())
    said = remedy_of_ports({"eth0": {8123}}, found)
    assert said.startswith("# tcp 8123, sent on to 10.88.0.5:80 over IPv4, by ") and not lines(said)
    assert "take that rule away" in said
    assert lines(remedy_of_ports({"eth0": {8123, 81}}, found)) == [
        "networking.firewall.allowedTCPPorts = [ 81 ];"
    ]
