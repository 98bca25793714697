"""What the rules stand in: interfaces under others, rules of routing, and what is for all who listen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_nixos.observe.base import Probe
from pytest_nixos.observe.firewall.cast import Cast
from pytest_nixos.observe.firewall.nft import parse_nft
from pytest_nixos.observe.firewall.opening import Decision
from pytest_nixos.observe.firewall.probe import firewall
from pytest_nixos.observe.firewall.routing import Fate, Surroundings
from pytest_nixos.observe.firewall.ruleset import Ruleset
from pytest_nixos.observe.firewall.surroundings import parse_surroundings
from tests.unit.observe.here import ask

ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}
EVERY = ({"priority": n, "src": "all", "table": t} for n, t in ((0, "local"), (32766, "main")))
PLAIN = list(EVERY)


def link(
    name: str, *, address: str = "", master: str = "", kind: str = "", port_of: str = ""
) -> Any:
    info = {"info_kind": kind, "info_slave_kind": port_of}
    entry: dict[str, Any] = {"ifname": name, "link_type": "ether", "addr_info": []}
    if any(info.values()):
        entry["linkinfo"] = {key: value for key, value in info.items() if value}
    if master:
        entry["master"] = master
    if address:
        entry["addr_info"] = [{"family": "inet", "local": address, "prefixlen": 24}]
    return entry


def around(
    *links: Any, rules: list[Any] | None = None, routes: list[Any] | None = None
) -> Surroundings:
    return parse_surroundings(
        addresses=json.dumps(links),
        routes=[(4, json.dumps(routes or []))],
        forwarding="4 1\n",
        policies=[(4, json.dumps(PLAIN if rules is None else rules))],
    )


def meta(key: str, value: object) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": value}}


def dport(port: int) -> dict[str, Any]:
    left = {"payload": {"protocol": "tcp", "field": "dport"}}
    return {"match": {"op": "==", "left": left, "right": port}}


def chains(*made: tuple[str, str, str, list[Any]]) -> dict[str, Any]:
    """Write tables of one chain each: family, hook, policy, rules."""
    entries: list[Any] = []
    for family, hook, policy, rules in made:
        at = {"family": family, "table": hook}
        base = {"name": "c", "type": "filter", "hook": hook, "prio": 0, "policy": policy}
        entries.append({"chain": at | base})
        entries += [
            {"rule": at | {"chain": "c", "handle": n, "expr": expr}} for n, expr in enumerate(rules)
        ]
    return {"nftables": entries}


def decided(ruleset: Ruleset, interface: str, port: int = 22) -> Decision:
    return ruleset.judge(protocol="tcp", port=port, interface=interface).decision


BRIDGE = around(
    link("br0", address="10.0.0.1", kind="bridge"), link("eth0", master="br0", port_of="bridge")
)


def test_a_port_of_a_bridge_is_asked_where_frames_are_filtered() -> None:
    ruled = parse_nft(
        chains(
            ("inet", "input", "drop", [[meta("iifname", "br0"), dport(22), ACCEPT]]),
            ("bridge", "prerouting", "accept", [[meta("iifname", "eth0"), dport(22), DROP]]),
        )
    )
    ruleset = Ruleset(tables=ruled, surroundings=BRIDGE)
    assert decided(ruleset, "eth0") is Decision.REFUSED
    assert decided(ruleset, "br0") is Decision.ACCEPTED  # by a port that no rule names
    assert {"eth0", "br0"} <= set(ruleset.interfaces)
    plain = Ruleset(
        tables=parse_nft(chains(("inet", "input", "drop", [[dport(22), ACCEPT]]))),
        surroundings=BRIDGE,
    )
    assert ruleset.seen_as("eth0") == "br0"
    assert list(plain.interfaces) == ["br0"]


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (meta("ibrname", "br0"), Decision.REFUSED),
        (meta("ibrname", "br1"), Decision.ACCEPTED),
        (meta("ibrpvid", 7), Decision.UNKNOWN),
        (
            {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}},
            Decision.UNKNOWN,
        ),
    ],
)
def test_what_a_bridge_looks_at(test: dict[str, Any], said: Decision) -> None:
    document = chains(("bridge", "input", "accept", [[test, dport(22), DROP]]))
    ruleset = Ruleset(tables=parse_nft(document), surroundings=BRIDGE)
    judged = ruleset.judge(protocol="tcp", port=22, interface="eth0")
    assert judged.decision is said
    if said is Decision.UNKNOWN:
        assert any("(in bridge input c)" in rule for rule in judged.rules)


def test_a_frame_that_leaves_the_bridge_again_is_not_judged() -> None:
    broute = {"mangle": {"key": {"meta": {"key": "broute"}}, "value": 1}}
    document = chains(("bridge", "prerouting", "accept", [[dport(22), broute]]))
    ruleset = Ruleset(tables=parse_nft(document), surroundings=BRIDGE)
    assert decided(ruleset, "eth0") is Decision.UNKNOWN
    assert decided(ruleset, "eth0", port=80) is Decision.ACCEPTED


@pytest.mark.parametrize(
    ("master", "port_of", "by_port", "by_master"),
    [
        ("bond", "bond", Decision.REFUSED, Decision.ACCEPTED),
        ("vrf", "vrf", Decision.UNKNOWN, Decision.UNKNOWN),
        ("new", "", Decision.UNKNOWN, Decision.UNKNOWN),
    ],
)
def test_a_port_of_something_else(
    master: str, port_of: str, by_port: Decision, by_master: Decision
) -> None:
    surroundings = around(
        link("m0", address="10.0.0.1", kind=master), link("eth0", master="m0", port_of=port_of)
    )
    for name, said in (("eth0", by_port), ("m0", by_master)):
        rules = [[meta("iifname", name), dport(22), ACCEPT]]
        tables = parse_nft(chains(("inet", "input", "drop", rules)))
        assert decided(Ruleset(tables=tables, surroundings=surroundings), "eth0") is said


def test_what_is_for_all_is_asked_apart() -> None:
    group = {"payload": {"protocol": "ip", "field": "daddr"}}
    rules = [[{"match": {"op": "==", "left": group, "right": "224.0.0.251"}}, ACCEPT]]
    ruleset = Ruleset(tables=parse_nft(chains(("inet", "input", "drop", rules))))
    assert not ruleset.reach().openings()
    found = ruleset.reach(cast=Cast.MULTICAST).openings()
    assert "udp 0-65535 to 224.0.0.251" in [o.what for o in found]
    assert not [o for o in found if o.protocol == 6]  # there is no TCP to many
    assert not ruleset.reach(cast=Cast.BROADCAST).openings()


def test_the_broadcast_addresses_are_those_of_the_networks() -> None:
    surroundings = around(link("eth0", address="10.0.7.9"), link("wg0"))
    assert [hex(n) for n in surroundings.broadcast_addresses()] == ["0xa0007ff"]


MARKS = {"priority": 100, "src": "all", "fwmark": "0x7", "table": "100"}


def test_the_way_back_may_be_chosen_by_a_mark() -> None:
    """Then nobody knows whether a check of the way back refuses an honest sender."""
    back = {"fib": {"result": "oif", "flags": ["saddr", "mark", "iif"]}}
    rules = [
        [dport(22), {"mangle": {"key": {"meta": {"key": "mark"}}, "value": 7}}],
        [{"match": {"op": "==", "left": back, "right": False}}, DROP],
    ]
    tables = parse_nft(chains(("inet", "prerouting", "accept", rules)))
    eth0 = link("eth0", address="10.0.0.1")
    ruleset = Ruleset(tables=tables, surroundings=around(eth0, rules=[*PLAIN, MARKS]))
    assert decided(ruleset, "eth0") is Decision.UNKNOWN
    assert decided(ruleset, "eth0", port=80) is Decision.ACCEPTED
    plain = Ruleset(tables=tables, surroundings=around(eth0))
    assert decided(plain, "eth0") is Decision.ACCEPTED


@pytest.mark.parametrize(
    ("route", "fate"),
    [
        ({"dst": "10.9.0.0/16", "dev": "eth1"}, Fate.AWAY),
        ({"dst": "10.9.0.0/16", "type": "blackhole"}, Fate.REFUSED),
        ({"dst": "10.9.0.0/16", "type": "throw"}, Fate.NO_ROUTE),
        ({"dst": "10.9.0.0/16", "type": "local", "dev": "lo"}, Fate.LOCAL),
        ({"dst": "10.9.1.0/24", "dev": "eth1"}, Fate.NO_ROUTE),
    ],
)
def test_what_a_table_says(route: dict[str, Any], fate: Fate) -> None:
    surroundings = around(link("eth0"), routes=[route | {"table": "7"}])
    asked = (((10 << 24) + (9 << 16) + 5,) * 2,)
    assert surroundings.look_up(4, "7", asked).fate is fate
    assert surroundings.look_up(4, "main", asked).fate is Fate.NO_ROUTE


def test_a_destination_with_two_ways_is_not_without_a_route() -> None:
    hops = [{"gateway": "10.0.0.2", "dev": "eth0"}, {"gateway": "10.1.0.2", "dev": "eth1"}]
    sent = {"dnat": {"family": "ip", "addr": "10.9.0.5", "port": 80}}
    document = chains(("ip", "prerouting", "accept", [[dport(8123), sent]]))
    document["nftables"][0]["chain"]["type"] = "nat"
    document["nftables"] += chains(("ip", "forward", "drop", [[meta("oifname", "eth1"), ACCEPT]]))[
        "nftables"
    ]
    routes = [{"dst": "default", "nexthops": hops}]
    surroundings = around(link("eth0", address="10.0.0.1"), link("eth1"), routes=routes)
    ruleset = Ruleset(tables=parse_nft(document), surroundings=surroundings)
    assert decided(ruleset, "eth0", port=8123) is Decision.UNKNOWN


@pytest.mark.parametrize(
    "batch",
    [
        r"""while read -r words; do printf '["%s %s"]\n' "$1" "$words"; done""",
        r"""printf '["odd"]\n["odd"]\n'; return 1""",
        "echo []",
        "return 255",
    ],
    ids=["whole", "failed", "short", "unknown"],
)
def test_routes_and_rules_are_asked_together_or_else_apart(batch: str) -> None:
    ip = rf"""
ip() {{ case $* in *-batch*) {batch};; *) printf '["%s %s"]\n' "$1" "${{*:3}}";; esac; }}
nft() {{ :; }}; systemctl() {{ :; }}
"""
    sections = ask(
        Probe(name="x", script=ip + firewall().script, parse=lambda output: output.sections)
    )
    asked = {"routes": "route show table all", "rules": "rule"}
    for kind, words in asked.items():
        for family in (4, 6):
            assert next(iter(sections[f"{kind}-{family}"])) == f'["-{family} {words}"]'
            assert f"{kind}-{family}-status 0" in sections
