"""A firewall that is not in force is one finding with its reason; a declared port that other rules
refuse is told with the rule.
"""

from __future__ import annotations

from typing import Any, cast

import pytest
from msgspec.structs import replace

from checks.firewall import test_firewall as checks
from checks.firewall.loaded import FILTER, rest_on_the_filter, why_open
from checks.firewall.opened import undeclared
from checks.firewall.refused import misnamed_interfaces, refused_ports, remedy_of_refused
from pytest_nixos import Evidence, Observations, observe
from pytest_nixos.nix.config.declared import Firewall, InterfacePorts, PortRange
from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.subject import Subject
from tests.unit.standards.samples import host_config, sample_unit

OPEN = ":INPUT ACCEPT [0:0]"
NIXOS = """:INPUT ACCEPT [0:0]
:nixos-fw - [0:0]
-A INPUT -j nixos-fw
-A nixos-fw -i lo -j ACCEPT
-A nixos-fw -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{first}
-A nixos-fw -p tcp -m tcp --dport 443 -j ACCEPT
-A nixos-fw -p tcp -m tcp --dport 8000:8010 -j ACCEPT
-A nixos-fw -j DROP"""
OWN_RULE = "-A nixos-fw -p tcp -m tcp --dport 9000 -j ACCEPT"
REFUSES = "-A nixos-fw -p tcp -m tcp --dport 443 -j DROP"
SAID = (
    "it x-firewall-start[250]: iptables v1.8.11 (nf_tables): invalid portrange (min > max)",
    "it systemd[1]: firewall.service: Main process exited, code=exited, status=2/INVALIDARGUMENT",
)
DECLARED = replace(
    Firewall.none(),
    enabled=True,
    backend="iptables",
    everywhere=InterfacePorts(
        tcp=(PortRange(first=443, last=443), PortRange(first=8000, last=8010))
    ),
    trusted_interfaces=("lo",),
    allow_ping=True,
)
UNIT = Subject.parse("unit:firewall.service")
FILTERED = Subject.parse(":".join(FILTER))


def state(rules: str, rules_6: str = "", *, units: str = "active") -> observe.FirewallState:
    tables = [
        f"={tool}\n*filter\n{text}\nCOMMIT\n={tool}-status 0"
        for tool, text in (("iptables", rules), ("ip6tables", rules_6 or rules))
    ]
    text = "\n".join([f"=units\n{units}\ninactive\ninactive", *tables, ""])
    return observe.firewall().parse(ProbeOutput(stdout=text.encode(), exit_status=0))


class Journals:
    def of(self, probe: Any) -> Any:
        assert probe.name == "journal:firewall.service"
        return SAID


def judged(found: observe.FirewallState, **options: str) -> tuple[Evidence, str]:
    """Judge FW-001; options are texts by the last part of their names in networking.nftables."""
    nftables = {f"networking.nftables.{name}": text for name, text in options.items()}
    host = host_config(firewall=DECLARED, options=nftables)
    evidence = Evidence()
    with pytest.raises(pytest.fail.Exception) as told:
        checks.test_declared_firewall_is_loaded(
            DECLARED, found, host, cast("Observations", Journals()), evidence
        )
    return evidence, str(told.value)


def test_a_unit_that_failed_is_quoted_and_explains_the_rest() -> None:
    found = state(OPEN, units="failed")
    evidence, told = judged(found)
    assert "firewall.service (its rules are refused: iptables v1.8.11 (nf_tables): invalid" in told
    assert "networking.firewall (ports, ranges" in evidence.remedy
    assert "journal of firewall.service" in evidence.attachments
    # BOOT-001 blames the unit too, and says no more.
    assert evidence.blames == [FILTERED, UNIT]


def test_a_table_that_is_flushed_is_told_with_the_option_that_does_it() -> None:
    plain = replace(state(OPEN), units={"nftables.service": "active"})
    evidence, told = judged(plain, ruleset="  flush ruleset\ntable inet x { }")
    assert "the table inet nixos-fw is not there: networking.nftables.ruleset flushes it" in told
    assert "leave its line with flush out" in evidence.remedy
    evidence, told = judged(plain, ruleset="# flush ruleset\ntable inet x { }")
    assert told.endswith("the table inet nixos-fw is not there")
    assert "Something took" in evidence.remedy


def test_a_chain_that_is_gone_is_told() -> None:
    _, told = judged(state(OPEN))
    assert told.endswith("since its chain INPUT does not lead to nixos-fw")
    loose = NIXOS.format(first=OWN_RULE).replace("-A INPUT -j nixos-fw\n", "")
    evidence, told = judged(state(NIXOS.format(first=OWN_RULE), loose))
    assert told.startswith("an IPv6 packet that no rule names is let in, since its chain INPUT")
    assert "iptables -F" in evidence.remedy
    assert evidence.blames == [FILTERED]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("/bin/ip6tables -F INPUT", True),
        ("/bin/sh -c 'iptables -w --flush'", True),
        ("/bin/nft flush ruleset", True),
        ("/bin/iptables -t nat -F", False),
        ("/bin/iptables -L && echo -F", False),
    ],
)
def test_a_unit_that_takes_the_rules_away_is_named(line: str, named: bool) -> None:
    unit = sample_unit("tool.service", ExecStart=(line,))
    host = host_config(firewall=DECLARED, units={unit.name: unit})
    evidence = Evidence()
    told = why_open(state(OPEN), "ip6", host, evidence)
    assert told.endswith(": tool.service takes it away") is named
    assert ("tool.service" in evidence.remedy) is named


def test_what_is_open_for_want_of_rules_is_an_echo_and_a_rule_of_its_own_is_none() -> None:
    nothing, own = state(OPEN), state(NIXOS.format(first=OWN_RULE))
    evidence = Evidence()
    rest_on_the_filter(evidence, nothing, undeclared(DECLARED, nothing))
    assert evidence.rests_on == [FILTERED]
    assert "FW-001" in evidence.remedy
    ways = undeclared(DECLARED, own)
    assert [way.what for way in ways] == ["tcp 9000"]
    evidence = Evidence()
    rest_on_the_filter(evidence, own, ways)
    assert (evidence.rests_on, evidence.remedy) == ([], "")


def test_a_rule_that_lets_everything_in_is_the_finding_and_no_want_of_rules() -> None:
    everything = state(NIXOS.format(first="-A nixos-fw ! -i eth0 -j ACCEPT"))
    evidence, told = judged(everything)
    assert "is let in: " in told
    assert "-A nixos-fw ! -i eth0 -j ACCEPT" in told
    assert "Take the rule away that lets in everything" in evidence.remedy
    outside = Evidence()
    rest_on_the_filter(outside, everything)
    assert (outside.rests_on, outside.remedy) == ([], "")


def test_one_family_without_rules_is_enough_for_an_echo() -> None:
    half = state(NIXOS.format(first=OWN_RULE), OPEN)
    evidence = Evidence()
    rest_on_the_filter(evidence, half)
    assert evidence.rests_on == [FILTERED]
    assert "FW-001" in evidence.remedy


def test_a_declared_port_that_a_rule_refuses_is_told_with_the_rule() -> None:
    found = refused_ports(DECLARED, state(NIXOS.format(first=REFUSES)), "tcp")
    (told,) = map(str, found)
    assert told.startswith("tcp 443 (refused by ")
    assert "--dport 443 -j DROP" in told
    assert "8000" not in told
    remedy = remedy_of_refused(found)
    assert "--dport 443 -j DROP" in remedy
    assert "allowedTCPPorts" not in remedy


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("enp3so", "enp3s0"),
        ("eht0", "eth0"),
        ("enp4s0", ""),
        ("eth1", ""),
        ("enp3s0", ""),
        ("podman+", ""),
        ("tailscale0", ""),
        ("br-wan", ""),
        ("wlan0", ""),
        ("veth0", ""),
        ("eno3", ""),
        ("enp3s1.20", ""),
    ],
)
def test_an_interface_that_is_misspelt_is_told(name: str, meant: str) -> None:
    ports = InterfacePorts(tcp=(PortRange(first=5432, last=5432),))
    declared = replace(DECLARED, interfaces={name: ports})
    known = {"lo", "enp3s0", "eth0", "wg0", "br-wan", "br-lan", "lan0", "ens3"}
    assert misnamed_interfaces(declared, "tcp", known) == ({name: meant} if meant else {})
    assert misnamed_interfaces(declared, "udp", known) == {}


def test_a_port_that_one_family_refuses_is_told_of_that_family() -> None:
    refusing = state(NIXOS.format(first=OWN_RULE), NIXOS.format(first=REFUSES))
    (told,) = map(str, refused_ports(DECLARED, refusing, "tcp"))
    assert told.startswith("tcp 443 over IPv6 (refused by ")
    assert refused_ports(DECLARED, state(NIXOS.format(first=OWN_RULE)), "tcp") == []
