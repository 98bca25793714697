"""What the firewall's checks say of a ruleset, in words; no machine is needed for it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from checks.firewall.declaring import remedy_of_trust
from checks.firewall.opened import (
    Undeclared,
    asked_interfaces,
    extra_rule_texts,
    hand_written,
    is_written,
    trusted_ways_out,
    undeclared,
)
from checks.firewall.outside import disagreements, reached
from checks.firewall.test_firewall import _judge_undeclared
from pytest_nixos import Control, Evidence, HostConfig, Machine, PortState, Survey, View, observe
from pytest_nixos.nix.config.declared import Declared, Firewall, InterfacePorts, PortRange
from pytest_nixos.observe.base import ProbeOutput

RECORDED = Path(__file__).parents[1] / "recorded"


def ports(*numbers: int) -> tuple[PortRange, ...]:
    return tuple(PortRange(first=n, last=n) for n in numbers)


DECLARED = replace(
    Firewall.none(),
    enabled=True,
    backend="nftables",
    everywhere=InterfacePorts(tcp=ports(22)),
    trusted_interfaces=("lo", "br-lan"),
    allow_ping=True,
)


def state(name: str = "firewall-strange") -> observe.FirewallState:
    output = ProbeOutput(stdout=(RECORDED / f"{name}.txt").read_bytes(), exit_status=0)
    return observe.firewall().parse(output)


def told(found: list[Undeclared]) -> dict[str, str]:
    """What is told, apart from its rule: the first words up to the colon."""
    return {str(way).partition(": ")[0]: str(way).partition(": ")[2] for way in found}


def test_each_way_in_is_told_once_with_interface_family_source_and_rule() -> None:
    found = told(undeclared(DECLARED, state()))
    assert set(found) == {
        "tcp 40000-65535",
        "tcp 9102-9103 on eth0",
        "tcp 9200 on wg0",
        "tcp 5432 from 198.51.100.0/24",
        "tcp 6000-6009 from 203.0.113.7",
        "tcp 8123, sent on to 10.88.0.5:80 over IPv4",
        "tcp 2222, conditionally (limit)",
        "sctp",
        "tcp 7777, cannot be judged (meta skuid)",
        "tcp 9101 over IPv6",
    }
    assert found["tcp 40000-65535"] == "tcp dport >= 40000 accept (in inet nixos-fw input-allow)"
    assert (
        "dnat to 10.88.0.5:80 (in ip netavark hostports)"
        in found["tcp 8123, sent on to 10.88.0.5:80 over IPv4"]
    )


def test_udp_is_told_apart() -> None:
    found = told(undeclared(DECLARED, state(), protocols=(17, 136)))
    assert list(found) == ["udp 5353"]


def test_what_is_declared_is_not_told() -> None:
    wide = replace(
        DECLARED,
        everywhere=InterfacePorts(tcp=(*ports(22, 9101, 8123), PortRange(first=2000, last=65535))),
        interfaces={"wg+": InterfacePorts(tcp=ports(9200))},
    )
    assert list(told(undeclared(wide, state()))) == ["sctp"]


def test_an_interface_that_is_trusted_without_saying_so_is_told_as_such() -> None:
    found = told(undeclared(replace(DECLARED, trusted_interfaces=("lo",)), state()))
    assert "everything on br-lan" in found
    assert not [what for what in found if what != "everything on br-lan" and "on br-lan" in what]


def test_a_trusted_interface_that_all_strangers_come_through_is_an_open_host() -> None:
    assert trusted_ways_out(DECLARED, state()) == []  # br-lan leads to nobody else
    open_host = replace(DECLARED, trusted_interfaces=("lo", "eth+"))
    assert trusted_ways_out(open_host, state()) == ["eth0"]
    assert "eth0" in asked_interfaces(open_host, state())
    off = replace(open_host, enabled=False)
    assert trusted_ways_out(off, state()) == []
    remedy = remedy_of_trust(["eth0"], [8080, 22])
    assert remedy.splitlines()[1:] == [
        'networking.firewall.interfaces."eth0".allowedTCPPorts = [ 22 8080 ];'
    ]
    assert "allowedTCPPorts = [ ];" in remedy_of_trust(["eth0"], [])


def test_interfaces_to_ask_are_those_there_declared_and_named() -> None:
    declared = replace(DECLARED, interfaces={"podman+": InterfacePorts(udp=ports(53))})
    assert asked_interfaces(declared, state()) == [
        *(observe.STRANGER, "eth0", "peer0", "peer1", "podman0", "wg0", "podman*"),
    ]


def test_ping_is_told_only_where_it_is_not_declared() -> None:
    quiet = replace(DECLARED, allow_ping=False)
    assert [w for w in told(undeclared(quiet, state())) if w.startswith("icmp ")] == [
        "icmp type 8 over IPv4"
    ]


def host(firewall: Firewall, options: Mapping[str, Any]) -> HostConfig:
    def option(path: str) -> Declared:
        present = path in options
        return Declared(
            path=path, state="present" if present else "absent", value=options.get(path)
        )

    return cast("HostConfig", SimpleNamespace(firewall=firewall, option=option))


def test_rules_that_the_host_declares_as_text_are_told_from_others() -> None:
    texts = extra_rule_texts(
        host(
            DECLARED,
            {
                "networking.firewall.extraInputRules": "tcp dport >= 40000 accept",
                "networking.nftables.tables": {
                    "nixos-fw": {"content": "tcp dport 9101 accept", "family": "inet"},
                    "netavark": {"content": "", "family": "ip", "enable": False},
                },
            },
        )
    )
    assert list(texts) == ["networking.firewall.extraInputRules"]
    written = [w.what for w in undeclared(DECLARED, state()) if is_written(w, texts)]
    assert written == ["tcp 40000-65535"]


def test_a_hand_written_ruleset_is_one_in_place_of_the_nixos_firewall() -> None:
    off = replace(DECLARED, enabled=False)
    options = {
        "networking.nftables.enable": True,
        "networking.nftables.ruleset": "table inet x {\n}",
    }
    assert hand_written(host(off, options))
    assert not hand_written(host(DECLARED, options))
    assert not hand_written(host(off, {**options, "networking.nftables.enable": False}))
    assert not hand_written(host(off, {"networking.nftables.enable": True}))


def judged(*, counts: bool, text: str) -> Evidence:
    """Judge what is opened by one rule of the host's own and by a container engine."""
    found = [
        w for w in undeclared(DECLARED, state()) if w.what.startswith(("tcp 40000", "tcp 9101"))
    ]
    control = SimpleNamespace(parameters=lambda: {"extra-rules-are-declared": counts})
    evidence = Evidence()
    own = host(DECLARED, {"networking.firewall.extraInputRules": text})
    _judge_undeclared(own, found, cast("Control", control), evidence)
    return evidence


BOTH = "tcp dport >= 40000 accept\nmeta nfproto ipv6 tcp dport 9101 accept"


def test_rules_in_text_count_as_declared_only_where_the_profile_says_so() -> None:
    with pytest.raises(AssertionError, match="40000-65535"):
        judged(counts=False, text=BOTH)
    told_anyway = judged(counts=True, text=BOTH).observed
    assert told_anyway["undeclared"] == []
    assert len(told_anyway["opened by rules that the host declares as text"]) == 2


def test_what_no_text_names_is_never_declared() -> None:
    with pytest.raises(AssertionError, match="tcp 9101 over IPv6") as caught:
        judged(counts=True, text="tcp dport >= 40000 accept")
    assert "40000" not in str(caught.value)


def test_what_cannot_be_judged_is_never_declared() -> None:
    found = [w for w in undeclared(DECLARED, state()) if "7777" in w.what]
    control = SimpleNamespace(parameters=lambda: {"extra-rules-are-declared": True})
    text = {"networking.firewall.extraInputRules": "meta skuid 0 tcp dport 7777 accept"}
    with pytest.raises(AssertionError, match="cannot be judged"):
        _judge_undeclared(host(DECLARED, text), found, cast("Control", control), Evidence())


EVERY = dict.fromkeys(range(1, 65536), PortState.FILTERED)


def view(states: Mapping[int, PortState], **more: Any) -> View:
    return View(
        interface="eth0",
        family="ip",
        stranger=IPv4Address("192.0.2.77"),
        guest=IPv4Address("192.0.2.2"),
        tcp={**EVERY, **states},
        **more,
    )


AGREEING = {
    22: PortState.OPEN,
    9102: PortState.CLOSED,
    9103: PortState.OPEN,
    **dict.fromkeys(range(40000, 65536), PortState.CLOSED),
}


class Again:
    """A machine that is looked at a second time."""

    def __init__(self, states: Mapping[int, PortState]) -> None:
        self.states = states

    def survey(self, wanted: Survey, *, timeout_s: float) -> tuple[View, ...]:
        del timeout_s
        seen = {port: self.states.get(port, PortState.FILTERED) for port in wanted.tcp}
        return (replace(view({}), tcp=seen),)


def compared(
    states: Mapping[int, PortState], again: Mapping[int, PortState], **more: Any
) -> list[str]:
    machine = cast("Machine", Again(again))
    return [str(one) for one in disagreements(machine, state(), [view(states, **more)])]


def test_where_rules_and_stranger_agree_nothing_is_said() -> None:
    assert compared(AGREEING, AGREEING, answers_ping=True) == []
    assert reached(view(AGREEING)) == [22, 9103]


@pytest.mark.parametrize("seen", [PortState.OPEN, PortState.CLOSED])
def test_an_answer_of_a_port_that_the_rules_refuse_is_a_disagreement(seen: PortState) -> None:
    (one,) = compared({**AGREEING, 81: seen, 82: seen}, AGREEING)
    assert one.startswith(f"tcp 81-82 over IPv4 on eth0 is {seen.value} from outside, and refused")
    assert "policy drop of inet nixos-fw input" in one


def test_silence_of_a_port_that_the_rules_open_counts_once_it_is_silent_again() -> None:
    silent = {**AGREEING, 22: PortState.FILTERED}
    (one,) = compared(silent, silent)
    assert one.startswith("tcp 22 over IPv4 on eth0 is filtered from outside, and accepted")
    assert compared(silent, AGREEING) == []


def test_silence_says_nothing_where_the_guest_answers_nobody() -> None:
    assert compared({}, {}) == []


def test_what_is_sent_on_unknown_or_limited_is_never_a_disagreement() -> None:
    for port in (8123, 7777, 2222):
        for seen in PortState:
            assert compared({**AGREEING, port: seen}, AGREEING) == []


def test_an_answer_by_udp_is_held_against_the_rules_too() -> None:
    answers = {5353: PortState.CLOSED, 53: PortState.OPEN}
    (one,) = compared(AGREEING, AGREEING, udp=answers)
    assert one.startswith("udp 53 over IPv4 on eth0 is open from outside, and refused")
