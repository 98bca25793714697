"""What a ruleset lets in, judged on rulesets of the NixOS firewall's shape as real tools printed
them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.observe.base import ProbeOutput
from pytest_nixos.observe.firewall.iptables import parse_iptables_save
from pytest_nixos.observe.firewall.nft import parse_nft
from pytest_nixos.observe.firewall.opening import Decision, Opening
from pytest_nixos.observe.firewall.probe import FirewallState, Tool, firewall
from pytest_nixos.observe.firewall.routing import Interface, Route, Surroundings
from pytest_nixos.observe.firewall.ruleset import Ruleset

RECORDED = Path(__file__).parents[2] / "recorded"
BACKENDS = ["firewall-nftables", "firewall-iptables", "firewall-iptables-seen-by-nft"]
FAMILIES = ["ip", "ip6"]


def read(name: str) -> FirewallState:
    output = ProbeOutput(stdout=(RECORDED / f"{name}.txt").read_bytes(), exit_status=0)
    return firewall().parse(output)


def ports(ruleset: Ruleset, protocol: str, **packet: Any) -> list[str]:
    return [str(span) for span in ruleset.open_ports(protocol, **packet)]


def openings(ruleset: Ruleset, **asked: Any) -> list[Opening]:
    return list(ruleset.reach(**asked).openings())


@pytest.fixture(params=BACKENDS)
def ruleset(request: pytest.FixtureRequest) -> Ruleset:
    return read(request.param).ruleset


@pytest.mark.parametrize("family", FAMILIES)
def test_the_declared_ports_are_open_and_no_others(ruleset: Ruleset, family: str) -> None:
    assert ports(ruleset, "tcp", family=family) == ["22", "8000-8010", "11434"]
    assert ports(ruleset, "udp", family=family) == ["51820"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_port_of_one_interface_is_open_there_only(ruleset: Ruleset, family: str) -> None:
    opened = ports(ruleset, "tcp", interface="eth1", family=family)
    assert opened == ["22", "8000-8010", "9100", "11434"]


@pytest.mark.parametrize("interface", ["lo", "br-trusted"])
def test_everything_is_open_on_trusted_interfaces(ruleset: Ruleset, interface: str) -> None:
    assert ports(ruleset, "tcp", interface=interface) == ["0-65535"]
    assert interface in ruleset.trusted_interfaces


def test_a_rule_for_one_source_is_conditional_and_reported_with_its_text(ruleset: Ruleset) -> None:
    verdict = ruleset.judge(protocol="tcp", port=5432)
    assert verdict.decision is Decision.CONDITIONAL
    assert "10.0.0.0/8" in verdict.rules[0]
    found = [o.what for o in openings(ruleset) if "5432" in o.what]
    assert found == ["tcp 5432 from 10.0.0.0/8"]


def test_ping_is_seen_behind_a_rate_limit(ruleset: Ruleset) -> None:
    assert ruleset.accepts_ping


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", BACKENDS[:2])
def test_the_rest_is_refused(name: str, family: str) -> None:
    assert read(name).ruleset.refuses_by_default(family=family)


@pytest.mark.parametrize("name", BACKENDS[:2])
def test_the_reverse_path_filter_is_seen(name: str) -> None:
    assert read(name).ruleset.has_reverse_path_filter


def test_openings_name_their_rule_without_counters() -> None:
    found = openings(read("firewall-nftables").ruleset, interface="eth1")
    (opening,) = [o for o in found if "9100" in o.what]
    assert opening.what == "tcp 9100"
    assert opening.is_general
    assert opening.rules == ('iifname "eth1" tcp dport 9100 accept (in inet nixos-fw input-allow)',)


def test_tools_that_are_missing_are_told_from_empty_rulesets() -> None:
    state = read("firewall-nftables")
    assert state.tools == {"nft": Tool.ANSWERED, "iptables": Tool.ABSENT, "ip6tables": Tool.ABSENT}
    assert state.units["firewall.service"] == "inactive"
    assert state.units["nftables.service"] == "active"
    nothing = firewall().parse(ProbeOutput(stdout=b"=units\ninactive\ninactive\n", exit_status=0))
    assert not nothing.is_known
    assert not nothing.is_active


def test_iptables_own_words_are_taken_where_nft_shows_its_tables_too() -> None:
    text = b"".join((RECORDED / f"{name}.txt").read_bytes() for name in BACKENDS[:0:-1])
    state = firewall().parse(ProbeOutput(stdout=text, exit_status=0))
    assert Tool.ABSENT not in state.tools.values()
    rules = [rule for opening in openings(state.ruleset) for rule in opening.rules]
    assert rules
    assert all(rule.startswith("-A ") for rule in rules)
    assert state.ruleset.has_reverse_path_filter


def test_a_tool_that_fails_is_no_answer() -> None:
    for text in (b"Error: not permitted\n=nft-status 1", b"{}\n=nft-status 0", b"\n=nft-status 0"):
        state = firewall().parse(ProbeOutput(stdout=b"=nft\n" + text, exit_status=0))
        assert state.tools["nft"] is Tool.FAILED
        assert not state.is_known


def changed(change: Callable[[list[dict[str, Any]]], None]) -> Ruleset:
    """Return the recorded nftables ruleset with `change` made to its JSON."""
    text = (RECORDED / "firewall-nftables.txt").read_text()
    document = json.loads(text.split("=nft\n")[1].split("\n")[0])
    change(document["nftables"])
    return Ruleset(tables=parse_nft(document))


def rule(chain: str, *expr: dict[str, Any]) -> dict[str, Any]:
    at = {"family": "inet", "table": "nixos-fw", "chain": chain, "handle": 999}
    return {"rule": {**at, "expr": list(expr)}}


def dport(right: object, *, op: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": "tcp", "field": "dport"}}
    return {"match": {"op": op, "left": left, "right": right}}


ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}


def first_rule(entries: list[dict[str, Any]]) -> int:
    return next(i for i, entry in enumerate(entries) if "rule" in entry)


def test_a_rule_that_accepts_everything_opens_all_and_is_extra() -> None:
    ruleset = changed(lambda entries: entries.append(rule("input-allow", ACCEPT)))
    assert ports(ruleset, "tcp") == ["0-65535"]
    assert not ruleset.refuses_by_default()
    assert "all other protocols" in [o.what.split(", ")[-1] for o in openings(ruleset)]


def from_senders(*prefixes: tuple[str, int], family: str = "ip") -> Ruleset:
    """The recorded ruleset and rules that accept everything from these senders."""
    left = {"payload": {"protocol": family, "field": "saddr"}}
    return changed(
        lambda entries: entries.extend(
            rule(
                "input-allow",
                {
                    "match": {
                        "op": "==",
                        "left": left,
                        "right": {"prefix": {"addr": address, "len": length}},
                    }
                },
                ACCEPT,
            )
            for address, length in prefixes
        )
    )


@pytest.mark.parametrize(
    ("family", "prefixes"),
    [
        ("ip", [("10.0.0.0", 8)]),
        ("ip", [("10.0.0.0", 8), ("192.168.0.0", 16), ("203.0.113.0", 24)]),
        ("ip6", [("fd00::", 8)]),
        ("ip6", [("2001:db8::", 32)]),
    ],
)
def test_whom_a_rule_trusts_by_name_is_not_let_in_by_default(
    family: str, prefixes: list[tuple[str, int]]
) -> None:
    ruleset = from_senders(*prefixes, family=family)
    for each in FAMILIES:
        assert ruleset.refuses_by_default(family=each)
    told = [o for o in openings(ruleset, family=family) if o.protocol == -1]
    assert any(o.sources is not None for o in told)


@pytest.mark.parametrize(
    ("family", "prefixes"),
    [
        ("ip", [("0.0.0.0", 1), ("128.0.0.0", 1)]),
        ("ip", [(f"{n}.0.0.0", 4) for n in range(0, 256, 16)]),
        ("ip", [("0.0.0.0", 0)]),
        ("ip", [("64.0.0.0", 2)]),
        ("ip6", [("2000::", 3)]),  # all that anybody in the internet has
        ("ip6", [("2000::", 4)]),
    ],
)
def test_rules_that_name_many_senders_are_the_default(
    family: str, prefixes: list[tuple[str, int]]
) -> None:
    assert not from_senders(*prefixes, family=family).refuses_by_default(family=family)


def test_a_drop_in_front_closes_a_declared_port() -> None:
    ruleset = changed(
        lambda entries: entries.insert(first_rule(entries), rule("input-allow", dport(22), DROP))
    )
    assert ports(ruleset, "tcp") == ["8000-8010", "11434"]


def test_a_drop_behind_changes_nothing() -> None:
    ruleset = changed(lambda entries: entries.append(rule("input-allow", dport(22), DROP)))
    assert ports(ruleset, "tcp") == ["22", "8000-8010", "11434"]


@pytest.mark.parametrize("flags", [["ecn", "cwr"], ["cwr"]])
def test_a_connection_that_offers_congestion_notification_is_a_strangers_too(
    flags: list[str],
) -> None:
    left = {"payload": {"protocol": "tcp", "field": "flags"}}
    match = {"match": {"op": "in", "left": left, "right": flags}}

    def add(entries: list[dict[str, Any]]) -> None:
        entries.insert(first_rule(entries), rule("input-allow", match, ACCEPT))

    found = [o for o in openings(changed(add)) if o.protocol == 6]
    assert {o.decision for o in found} == {Decision.ACCEPTED}
    assert sum(span.last - span.first + 1 for span in found[0].ports) > 60_000


def test_a_dormant_table_is_not_in_force_whatever_json_says_of_it() -> None:
    """The JSON of nft 1.0.6 holds the table's name in the place of the flag."""
    chain = {"type": "filter", "hook": "input", "prio": 0, "policy": "drop", "name": "input"}
    table = {"family": "inet", "name": "t", "handle": 1}
    text = "table inet t { # handle 1\n\tflags {}\n\n\tchain input { # handle 1\n"
    document = nft(json.dumps({"chain": chain}))

    def hook(flags: object, told: str = "") -> str:
        document["nftables"][0] = {"table": {**table, "flags": flags}}
        return parse_nft(document, told)["inet t"]["input"].hook

    assert hook("t", text.replace("{}", "dormant")) == ""
    assert hook(["dormant"]) == hook("dormant") == ""
    assert hook("dormant", text.replace("{}", "owner")) == "input"
    assert hook(["owner"]) == hook("dormant-not") == "input"


def test_every_base_chain_of_the_hook_has_to_accept() -> None:
    def add(entries: list[dict[str, Any]]) -> None:
        table = {"family": "inet", "table": "extra"}
        hook = {"type": "filter", "hook": "input", "prio": 10, "policy": "drop"}
        entries.append({"chain": {**table, "name": "late", **hook}})
        entries.append(
            {"rule": {**table, "chain": "late", "handle": 1, "expr": [dport(22), ACCEPT]}}
        )

    assert ports(changed(add), "tcp") == ["22"]


def test_named_sets_ranges_and_negations_are_understood() -> None:
    def add(entries: list[dict[str, Any]]) -> None:
        table = {"family": "inet", "table": "nixos-fw"}
        elements = [443, {"range": [5000, 5002]}, {"elem": {"val": 6000, "timeout": 60}}]
        entries.append({"set": {**table, "name": "more", "elem": elements}})
        entries.append(rule("input-allow", dport("@more"), ACCEPT))
        entries.append(rule("input-allow", dport({"range": [1, 65000]}, op="!="), ACCEPT))

    assert ports(changed(add), "tcp") == [
        *("0", "22", "443", "5000-5002", "6000", "8000-8010", "11434", "65001-65535"),
    ]


def test_the_wildcard_of_a_verdict_map_stands_for_the_rest() -> None:
    def change(entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            for statement in entry.get("rule", {}).get("expr", []):
                if "vmap" in statement:
                    jump = {"jump": {"target": "input-allow"}}
                    pairs = [["established", ACCEPT], ["invalid", DROP], ["*", jump]]
                    statement["vmap"]["data"] = {"set": pairs}

    ruleset = changed(change)
    assert ports(ruleset, "tcp") == ["22", "8000-8010", "11434"]
    # This ruleset was read without its text.
    assert ruleset.has_reverse_path_filter


def test_return_and_goto_leave_a_chain() -> None:
    def add(entries: list[dict[str, Any]]) -> None:
        entries.insert(first_rule(entries), rule("input-allow", dport(22), {"return": None}))
        entries.insert(
            first_rule(entries),
            rule("input-allow", dport(11434), {"goto": {"target": "rpfilter-allow"}}),
        )

    # An empty chain that was gone to ends in the base chain's policy.
    assert ports(changed(add), "tcp") == ["8000-8010"]


def test_a_chain_that_jumps_to_itself_ends() -> None:
    def add(entries: list[dict[str, Any]]) -> None:
        entries.insert(
            first_rule(entries), rule("input-allow", {"jump": {"target": "input-allow"}})
        )

    assert ports(changed(add), "tcp") == ["22", "8000-8010", "11434"]


def test_no_rules_let_everything_in() -> None:
    assert ports(Ruleset(), "tcp") == ["0-65535"]
    assert not Ruleset().refuses_by_default()


IPTABLES = """*filter
:INPUT DROP [0:0]
:mine - [0:0]
-A INPUT -j mine
-A mine -i wg+ -p tcp -m multiport --dports 80,443,1000:1002 -j ACCEPT
-A mine ! -i eth0 -p udp -m udp --dport 53 -j ACCEPT
-A mine -p tcp -m tcp --dport 25 -m comment --comment "it's \\"quoted\\"" -j ACCEPT
-A mine -p tcp -m limit --limit 1/min -m tcp --dport 26 -j ACCEPT
-A mine -p esp -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80
COMMIT
"""


def test_iptables_extensions_and_negations() -> None:
    ruleset = Ruleset(tables=parse_iptables_save(IPTABLES, family=4))
    # 8080 is sent to 80.
    assert ports(ruleset, "tcp", interface="wg0") == ["25", "80", "443", "1000-1002", "8080"]
    assert ports(ruleset, "tcp", interface="eth0") == ["25"]
    assert ports(ruleset, "udp", interface="eth0") == []
    assert ports(ruleset, "udp", interface="eth1") == ["53"]
    found = {(o.what, o.decision) for o in openings(ruleset, interface="eth0")}
    assert ("esp", Decision.ACCEPTED) in found
    assert ("tcp 26", Decision.CONDITIONAL) in found
    assert len(ruleset.redirections) == 1
    # The other family has no rules at all.
    assert ports(ruleset, "tcp", family="ip6") == ["0-65535"]


def nft(*lines: str) -> dict[str, Any]:
    """Write chains of one table; each line is JSON of a rule's expressions."""
    at = {"family": "inet", "table": "t"}
    entries: list[dict[str, Any]] = [{"table": {"family": "inet", "name": "t"}}]
    for line in lines:
        entries.append(json.loads(line))
        for entry in entries[-1].values():
            entry |= {**at, **entry}
    return {"nftables": entries}


def fib(*, missing: bool) -> dict[str, Any]:
    left = {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}
    return {"match": {"op": "==", "left": left, "right": not missing}}


@pytest.mark.parametrize(
    ("expr", "policy", "there"),
    [
        ([fib(missing=True), DROP], "accept", True),
        ([fib(missing=False), ACCEPT], "drop", True),
        ([fib(missing=True), {"counter": {"packets": 0, "bytes": 0}}], "accept", False),
        ([fib(missing=False), DROP], "accept", False),
        # A rule that stands behind the end of its chain does nothing.
        ([ACCEPT], "accept", False),
    ],
)
def test_the_reverse_path_is_checked_if_forged_packets_are_refused(
    expr: list[dict[str, Any]], policy: str, there: bool
) -> None:
    hook = {"type": "filter", "hook": "prerouting", "prio": -150, "policy": policy}
    document = nft(
        json.dumps({"chain": {"name": "pre", **hook}}),
        json.dumps({"rule": {"chain": "pre", "handle": 1, "expr": expr}}),
        json.dumps({"rule": {"chain": "pre", "handle": 2, "expr": [fib(missing=True), DROP]}})
        if expr == [ACCEPT]
        else json.dumps({"chain": {"name": "idle"}}),
    )
    assert Ruleset(tables=parse_nft(document)).has_reverse_path_filter is there


@pytest.mark.parametrize(("exists", "there"), [(True, True), (False, False)])
def test_decrypted_packets_of_ipsec_are_no_strangers(exists: bool, there: bool) -> None:
    """nixpkgs' firewall-nftables.nix lets them pass its check of the reverse path."""
    hook = {"type": "filter", "hook": "prerouting", "prio": -140, "policy": "drop"}
    ipsec = {"match": {"op": "==", "left": {"meta": {"key": "ipsec"}}, "right": exists}}
    document = nft(
        json.dumps({"chain": {"name": "rpfilter", **hook}}),
        json.dumps({"rule": {"chain": "rpfilter", "handle": 1, "expr": [ipsec, ACCEPT]}}),
        json.dumps(
            {"rule": {"chain": "rpfilter", "handle": 2, "expr": [fib(missing=False), ACCEPT]}}
        ),
    )
    assert Ruleset(tables=parse_nft(document)).has_reverse_path_filter is there


@pytest.mark.parametrize(
    ("exempted", "kind", "way", "there"),
    [
        ("eth0", "", "eth0", False),
        ("wg0", "wireguard", "wg0", True),
        ("eth1", "", "eth0", True),
        ("eth0", "veth", "", False),
        ("br0", "bridge", "", True),
    ],
)
def test_the_reverse_path_is_checked_where_strangers_come_from(
    exempted: str, kind: str, way: str, there: bool
) -> None:
    """Rules for one interface are no rules for a stranger's, but where all others are behind it."""
    hook = {"type": "filter", "hook": "prerouting", "prio": -150, "policy": "accept"}
    named = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": exempted}}
    document = nft(
        json.dumps({"chain": {"name": "pre", **hook}}),
        json.dumps({"rule": {"chain": "pre", "handle": 1, "expr": [named, ACCEPT]}}),
        json.dumps({"rule": {"chain": "pre", "handle": 2, "expr": [fib(missing=True), DROP]}}),
    )
    surroundings = Surroundings(
        is_known=True,
        interfaces=(
            Interface(name="lo"),
            *((Interface(name="eth0"),) if exempted != "eth0" else ()),
            Interface(name=exempted, device_kind=kind),
        ),
        routes=tuple(
            Route(family=f, destinations=((0, (1 << bits) - 1),), length=0, interface=way)
            for f, bits in ((4, 32), (6, 128))
            if way
        ),
    )
    ruleset = Ruleset(tables=parse_nft(document), surroundings=surroundings)
    assert ruleset.has_reverse_path_filter is there


def test_a_limit_behind_the_rule_that_accepts_limits_nothing() -> None:
    hook = {"type": "filter", "hook": "input", "prio": 0, "policy": "drop"}
    limit = {"limit": {"rate": 10, "per": "minute", "inv": True}}
    rules = [[dport(22), ACCEPT], [dport(22), limit, DROP]]
    for order, expected in ((rules, 0), (rules[::-1], 1)):
        document = nft(
            json.dumps({"chain": {"name": "input", **hook}}),
            *(
                json.dumps({"rule": {"chain": "input", "handle": n, "expr": expr}})
                for n, expr in enumerate(order)
            ),
        )
        assert len(Ruleset(tables=parse_nft(document)).limits) == expected


@pytest.mark.parametrize(
    "statement",
    [
        {"match": {"op": "==", "left": {"ct helper": None}, "right": "ftp"}},
        {"match": {"op": "==", "left": {"socket": {"key": "transparent"}}, "right": 1}},
        {"match": {"op": "==", "left": {"meta": {"key": "cgroup"}}, "right": 7}},
        {"something-new": {"of": "nft"}},
    ],
)
def test_what_cannot_be_judged_is_unknown_and_names_the_rule(statement: dict[str, Any]) -> None:
    hook = {"type": "filter", "hook": "input", "prio": 0, "policy": "drop"}
    document = nft(
        json.dumps({"chain": {"name": "input", **hook}}),
        json.dumps({"rule": {"chain": "input", "handle": 1, "expr": [statement, ACCEPT]}}),
    )
    ruleset = Ruleset(tables=parse_nft(document))
    judged = ruleset.judge(protocol="tcp", port=80)
    assert judged.decision is Decision.UNKNOWN
    assert judged.rules[0].endswith("(in inet t input)")
    assert {o.decision for o in openings(ruleset)} == {Decision.UNKNOWN}
    assert ruleset.open_ports("tcp") == []
    # The same in front of "drop" leaves a port that is opened behind it unknown, too.
    document["nftables"][-1]["rule"]["expr"][-1] = DROP
    document["nftables"].append(
        {"rule": {"family": "inet", "table": "t", "chain": "input", "handle": 2, "expr": [ACCEPT]}}
    )
    again = Ruleset(tables=parse_nft(document))
    assert again.judge(protocol="tcp", port=80).decision is Decision.UNKNOWN


def test_rules_that_no_tool_shows_are_told() -> None:
    text = (
        b'=nft\n{"nftables": []}\n=nft-status 0\n=iptables\n# Warning: iptables-legacy tables present\n'
        b"=iptables-status 0\n=kernel\nip filter nat\n"
    )
    state = firewall().parse(ProbeOutput(stdout=text, exit_status=0))
    assert state.is_known
    assert state.unseen == ("no tool shows the iptables tables filter, nat of the kernel",)


def test_both_iptables_of_the_kernel_are_read_beside_nft() -> None:
    save = "*filter\n:INPUT {policy} [0:0]\n{rule}COMMIT\n"
    new = save.format(policy="DROP", rule="-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n")
    old = save.format(policy="ACCEPT", rule="-A INPUT -p tcp -m tcp --dport 81 -j DROP\n")
    text = (
        f"=iptables\n# Generated by iptables-save v1.8.9 (nf_tables) on Sat\n{new}\n=iptables-status 0\n"
        f"=iptables-legacy\n# Generated by iptables-save v1.8.9 on Sat\n{old}\n=iptables-legacy-status 0\n"
    )
    state = firewall().parse(ProbeOutput(stdout=text.encode(), exit_status=0))
    assert sorted(state.ruleset.tables) == ["ip filter", "ip filter (legacy)"]
    assert ports(state.ruleset, "tcp") == ["80"]
    closed = text.replace("--dport 81", "--dport 80")
    again = firewall().parse(ProbeOutput(stdout=closed.encode(), exit_status=0))
    assert ports(again.ruleset, "tcp") == []


def test_firewalld_is_judged_like_any_ruleset_of_nft() -> None:
    state = read("firewalld")
    assert state.units["firewalld.service"] == "active"
    assert state.is_active
    for family in FAMILIES:
        assert ports(state.ruleset, "tcp", family=family) == ["22", "9090"]
        assert state.ruleset.refuses_by_default(family=family)
    assert ports(state.ruleset, "tcp", interface="eth1") == ["0-65535"]
    assert "eth1" in state.ruleset.trusted_interfaces
    assert "udp 546 to fe80::/64" in [o.what for o in openings(state.ruleset, family="ip6")]


def test_of_chains_with_one_priority_the_one_registered_last_comes_first() -> None:
    """The kernel puts a new hook before those of its priority; only one of them can send a
    packet elsewhere.
    """
    hook = {"type": "nat", "hook": "prerouting", "prio": -100, "policy": "accept"}
    lines = []
    for number, port in enumerate((81, 82)):
        lines.append(json.dumps({"chain": {"name": f"c{number}", **hook}}))
        to = {"dnat": {"family": "ip", "addr": "10.0.0.9", "port": port}}
        rule = {"chain": f"c{number}", "handle": number, "expr": [dport(80), to]}
        lines.append(json.dumps({"rule": rule}))
    found = openings(Ruleset(tables=parse_nft(nft(*lines))))
    # Whether the guest has that address is not known here, so both ends are told.
    assert {o.target.rpartition(":")[2] for o in found if o.target} == {"82"}


@pytest.mark.parametrize(
    ("answer", "family", "protocol", "decision"),
    [
        ("icmp", "ip", "tcp", Decision.REFUSED),
        ("icmp", "ip6", "tcp", Decision.ACCEPTED),
        ("icmpv6", "ip", "tcp", Decision.ACCEPTED),
        ("tcp reset", "ip6", "tcp", Decision.REFUSED),
        ("tcp reset", "ip", "udp", Decision.ACCEPTED),
    ],
)
def test_the_answer_of_a_reject_says_for_whom_it_is(
    answer: str, family: str, protocol: str, decision: Decision
) -> None:
    """nft does not print "meta nfproto ipv4" in front of "reject with icmp"."""
    hook = {"type": "filter", "hook": "input", "prio": 0, "policy": "accept"}
    rule = {"chain": "input", "handle": 1, "expr": [{"reject": {"type": answer}}]}
    document = nft(json.dumps({"chain": {"name": "input", **hook}}), json.dumps({"rule": rule}))
    ruleset = Ruleset(tables=parse_nft(document))
    assert ruleset.judge(protocol=protocol, port=80, family=family).decision is decision


def _of_set(left: dict[str, Any], verdict: dict[str, Any], *more: Any, **told: Any) -> Ruleset:
    hook = {"type": "filter", "hook": "input", "prio": 0, "policy": "drop"}
    document = nft(
        json.dumps({"set": {"name": "s", "type": "ipv4_addr", **told}}),
        json.dumps({"chain": {"name": "input", **hook}}),
        *(json.dumps({"rule": {"chain": "input", "handle": 2, "expr": expr}}) for expr in more),
        json.dumps(
            {
                "rule": {
                    "chain": "input",
                    "handle": 1,
                    "expr": [{"match": {"op": "==", "left": left, "right": "@s"}}, verdict],
                }
            }
        ),
    )
    return Ruleset(tables=parse_nft(document))


SENDER = {"payload": {"protocol": "ip", "field": "saddr"}}


@pytest.mark.parametrize("op", ["add", "update", "delete"])
def test_a_set_that_rules_change_is_remembered_not_known(op: str) -> None:
    """Whoever is in it now says nothing of who will be: a stranger may knock."""
    change = {"set": {"op": op, "elem": SENDER, "set": "@s"}}
    ruleset = _of_set(SENDER, ACCEPT, [dport(7000), change], elem=["10.0.0.1"])
    assert {o.decision for o in openings(ruleset)} == {Decision.CONDITIONAL}
    plain = _of_set(SENDER, ACCEPT, elem=["10.0.0.1"])
    assert [o.what for o in openings(plain) if o.protocol == 6] == ["tcp 0-65535 from 10.0.0.1"]


@pytest.mark.parametrize(
    "told",
    [
        {"elem": ["10.0.0.0"], "stmt": [{"limit": {"rate": 1, "per": "second"}}]},
        {"elem": [{"elem": {"val": "10.0.0.0", "limit": {"rate": 1, "per": "second"}}}]},
    ],
)
def test_a_limit_in_a_set_is_a_limit(told: dict[str, Any]) -> None:
    ruleset = _of_set(SENDER, ACCEPT, **told)
    assert ruleset.judge(protocol="tcp", port=22).decision is Decision.CONDITIONAL
    assert ruleset.limits


def _with_ipset(rules: str, sets: str) -> Ruleset:
    text = f"=iptables\n*filter\n:INPUT DROP [0:0]\n{rules}\nCOMMIT\n\n=iptables-status 0\n=ipset\n{sets}\n"
    return firewall().parse(ProbeOutput(stdout=text.encode(), exit_status=0)).ruleset


MEMBERS = "create s hash:ip family inet\nadd s 10.0.0.1"
OF_SET = "-A INPUT -p tcp -m set --match-set s src -j ACCEPT"


@pytest.mark.parametrize(
    ("rules", "sets", "decision"),
    [
        (OF_SET, MEMBERS, Decision.ACCEPTED),
        (
            f"-A INPUT -p tcp -m tcp --dport 7000 -j SET --add-set s src\n{OF_SET}",
            MEMBERS,
            Decision.CONDITIONAL,
        ),
        (OF_SET, MEMBERS.replace("inet", "inet netmask 24"), Decision.UNKNOWN),
        (OF_SET, "create other hash:ip", Decision.UNKNOWN),
        (OF_SET, "create s hash:mac\nadd s 00:11:22:33:44:55", Decision.UNKNOWN),
    ],
)
def test_sets_of_iptables(rules: str, sets: str, decision: Decision) -> None:
    found = openings(_with_ipset(rules, sets))
    assert {o.decision for o in found} == {decision}
    assert all(o.rules for o in found)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ("TTL --ttl-set 1", "-m ttl --ttl-eq 1"),
        ("HMARK --hmark-mod 2", "-m mark --mark 0x1"),
        ("MARK --set-xmark 0x1/0x0", "-m mark --mark 0x1"),
    ],
)
def test_what_a_target_of_iptables_changes_is_no_longer_what_was_sent(
    target: str, match: str
) -> None:
    text = (
        f"*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j {target}\nCOMMIT\n"
        f"*filter\n:INPUT DROP [0:0]\n-A INPUT {match} -j ACCEPT\nCOMMIT\n"
    )
    ruleset = Ruleset(tables=parse_iptables_save(text, family=4))
    said = ruleset.judge(protocol="tcp", port=22).decision
    assert said is (Decision.ACCEPTED if target.startswith("MARK") else Decision.UNKNOWN)


@pytest.mark.parametrize(
    "condition",
    [
        "-m statistic --mode random --probability 0.5",
        "-m string --string x --algo bm",
        "-m time --timestart 08:00:00",
        "-m owner --uid-owner 0",
        "-m u32 --u32 0x0",
        "-m physdev --physdev-in eth0",
        "-m mac --mac-source 00:11:22:33:44:55",
        "-m geoip --source-country AQ",
        "-m conntrack --ctexpire 1:2",
        "-m addrtype --dst-type LOCAL --limit-iface-out",
        "-m cluster --cluster-total-nodes 2",
    ],
)
def test_what_iptables_asks_beside_the_packet_is_unknown_with_its_rule(condition: str) -> None:
    """In front of what accepts, and of what refuses."""
    for verdict, policy in (("ACCEPT", "DROP"), ("DROP", "ACCEPT")):
        text = f"*filter\n:INPUT {policy} [0:0]\n-A INPUT {condition} -j {verdict}\nCOMMIT\n"
        judged = Ruleset(tables=parse_iptables_save(text, family=4)).judge(protocol="tcp", port=22)
        assert judged.decision is Decision.UNKNOWN
        assert [rule for rule in judged.rules if condition in rule]


@pytest.mark.parametrize(
    "target",
    ["NFQUEUE --queue-num 0", "SYNPROXY", "TPROXY --on-port 80", "GEOACCEPT", "CT --helper ftp"],
)
def test_a_target_of_iptables_that_others_decide(target: str) -> None:
    text = (
        "*filter\n:INPUT DROP [0:0]\n"
        f"-A INPUT -p tcp -m tcp --dport 22 -j {target}\n"
        "-A INPUT -p tcp -m tcp --dport 23 -j ACCEPT\nCOMMIT\n"
    )
    ruleset = Ruleset(tables=parse_iptables_save(text, family=4))
    expected = Decision.REFUSED if target.startswith("CT") else Decision.UNKNOWN
    assert ruleset.judge(protocol="tcp", port=22).decision is expected
    assert ruleset.judge(protocol="tcp", port=23).decision is Decision.ACCEPTED
