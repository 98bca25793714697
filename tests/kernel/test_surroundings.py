"""The evaluator says what the kernel does where more than the rules of IP decides: bridges, rules of
routing, and packets that are for all who listen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pytest_nixos.observe.firewall.opening import Decision
from tests.kernel.lab import Lab, Packet, missing_packages

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and raw sockets need root"),
    pytest.mark.skipif(
        bool(missing_packages()),
        reason=f"missing: {', '.join(missing_packages())}; ./dev test installs them",
    ),
]

# eth1 becomes a port of a bridge, which has its Ethernet address.
_BRIDGE = """
set -e
ip link add br0 type bridge
echo 0 > /proc/sys/net/ipv4/conf/br0/rp_filter
ip addr flush dev eth1
ip link set eth1 master br0
ip link set br0 up
ip addr add 10.78.0.2/24 brd + dev br0
ip addr add fd78::2/64 dev br0 nodad
"""
_NAMES = {4: "ip", 6: "ip6"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as found:
        done = found.load(_BRIDGE)
        assert done.returncode == 0, done.stderr
        yield found


def table(family: str, hook: str, *rules: str, policy: str = "accept") -> str:
    lines = "\n".join(rules)
    return (
        f"nft -f - <<'END'\ntable {family} t {{\nchain c {{\n"
        f"type filter hook {hook} priority 0; policy {policy};\n{lines}\n}}\n}}\nEND\n"
    )


def to(destination: str, *, protocol: int = 17, port: int = 5353, link: int = 0) -> Packet:
    six = ":" in destination
    source = f"fd7{7 + link}::9" if six else f"10.7{7 + link}.0.9"
    return Packet(link=link, protocol=protocol, source=source, destination=destination, dport=port)


LISTEN = (to("224.0.0.1"), to("ff02::1"), to("255.255.255.255"), to("10.77.0.255"))
BEHIND = (
    to("10.78.0.2", protocol=6, port=22, link=1),
    to("fd78::2", protocol=6, port=22, link=1),
    to("10.78.0.2", protocol=6, port=80, link=1),
    to("224.0.0.1", link=1),
)
BESIDE = (to("10.77.0.2", protocol=6, port=22), to("fd77::2", protocol=6, port=22))
CASES = {
    "multicast by address": table(
        "inet", "input", "ip daddr 224.0.0.1 udp dport 5353 accept", policy="drop"
    ),
    "multicast by type of packet": table(
        "inet", "input", "pkttype multicast accept", policy="drop"
    ),
    "multicast by type of route": table(
        "inet", "input", "fib daddr type multicast accept", policy="drop"
    ),
    "broadcast by type of route": table(
        "inet", "input", "fib daddr type { broadcast, local } accept", policy="drop"
    ),
    "what is for others by type of route": table("inet", "input", "fib daddr type unicast drop"),
    "broadcast by addrtype": (
        "iptables -A INPUT -m addrtype --dst-type BROADCAST -j ACCEPT; iptables -P INPUT DROP"
    ),
    "all that is not for us alone, by addrtype": (
        "iptables -A INPUT -m addrtype ! --dst-type LOCAL -j DROP"
    ),
    "broadcast by type of packet": (
        "iptables -A INPUT -m pkttype --pkt-type broadcast -j ACCEPT; iptables -P INPUT DROP"
    ),
    "no rules": "true",
    "a port of the bridge is named": table("bridge", "input", 'iifname "eth1" tcp dport 22 drop'),
    "another port is named": table("bridge", "input", 'iifname "eth7" tcp dport 22 drop'),
    "the bridge refuses what it does not name": table(
        "bridge",
        "input",
        "ether type arp accept",
        "ip protocol tcp tcp dport 22 accept",
        policy="drop",
    ),
    "before the bridge": table("bridge", "prerouting", "ip6 nexthdr tcp drop"),
    "a bridge does not name itself as interface": table("bridge", "input", 'iifname "br0" drop'),
    "IP sees the bridge": table("inet", "input", 'iifname "br0" tcp dport 22 drop'),
    "IP does not see the port": table("inet", "input", 'iifname "eth1" drop'),
    "ingress of the port": (
        "nft -f - <<'END'\ntable netdev t {\nchain c {\n"
        "type filter hook ingress device eth1 priority 0;\nip protocol tcp drop\n}\n}\nEND\n"
    ),
    "the bridge marks for IP": table("bridge", "prerouting", "tcp dport 22 meta mark set 7")
    + table("inet", "input", "meta mark 7 drop").replace("inet t", "inet u"),
}


def disagreements(lab: Lab, script: str, packets: tuple[Packet, ...]) -> tuple[list[str], int]:
    """Return what evaluator and kernel do not agree on, and how many packets are not judged."""
    loaded = lab.load(script)
    assert loaded.returncode == 0, loaded.stderr
    state = lab.observe()
    begin = lab.next_number
    arrived = lab.send(packets)
    wrong, unjudged = [], 0
    for number, (packet, got) in enumerate(zip(packets, arrived, strict=True), start=begin):
        reach = state.ruleset.reach(
            interface=f"eth{packet.link}", family=_NAMES[packet.family], cast=packet.cast
        )
        decision, rules = reach.at(packet.point(number))
        if decision is Decision.UNKNOWN:
            unjudged += 1
        elif (decision is Decision.ACCEPTED) is not got:
            wrong.append(
                f"{packet}: {'' if got else 'not '}let in, said {decision.value} by {rules}"
            )
    return wrong, unjudged


@pytest.mark.parametrize("name", CASES)
def test_bridges_and_packets_for_all(lab: Lab, name: str) -> None:
    script = CASES[name]
    try:
        wrong, unjudged = disagreements(lab, script, (*LISTEN, *BEHIND, *BESIDE))
        assert not wrong, "\n".join(wrong)
        assert unjudged == 0
    finally:
        lab.load("iptables -P INPUT ACCEPT; iptables -F INPUT")
        lab.clear(legacy=False)


_SENT_ON = (
    "nft -f - <<'END'\ntable ip n {\nchain c {\ntype nat hook prerouting priority dstnat;\n"
    "tcp dport 8123 dnat to 10.79.0.2:80\ntcp dport 8124 dnat to 10.79.0.1:22\n}\n}\nEND\n"
)
_MARKS = table("ip", "prerouting", "ip dscp 0 tcp dport 8124 meta mark set 0x11").replace(
    "priority 0", "priority -150"
)
ROUTED = (
    to("10.77.0.2", protocol=6, port=8123),
    to("10.77.0.2", protocol=6, port=8124),
    to("10.77.0.2", protocol=6, port=22),
)
POLICIES = {
    "plain": ("true", "true"),
    "a blackhole for what is sent on": (
        "ip route add blackhole 10.79.0.2/32",
        "ip route del blackhole 10.79.0.2/32",
    ),
    "a rule that refuses a sender": (
        "ip rule add from 10.77.0.0/24 prohibit",
        "ip rule del from 10.77.0.0/24 prohibit",
    ),
    "a rule that refuses another sender": (
        "ip rule add from 10.99.0.0/24 prohibit",
        "ip rule del from 10.99.0.0/24 prohibit",
    ),
    "a rule before the table of own addresses": (
        (
            "ip rule add from all lookup local pref 100; ip rule del pref 0;"
            "ip rule add ipproto tcp dport 22 blackhole pref 5"
        ),
        "ip rule add from all lookup local pref 0; ip rule del pref 100; ip rule del pref 5",
    ),
    "a mark chooses a table without a route": (
        "ip rule add fwmark 0x11 lookup 100; ip route add unreachable default table 100",
        "ip rule del fwmark 0x11; ip route flush table 100",
    ),
    "bits of a mark": (
        "ip rule add not fwmark 0x10/0xf0 lookup 100; ip route add blackhole default table 100",
        "ip rule del not fwmark 0x10/0xf0; ip route flush table 100",
    ),
    "an interface chooses": (
        "ip rule add iif eth0 lookup 100; ip route add throw default table 100",
        "ip rule del iif eth0; ip route flush table 100",
    ),
    "an interface that packets do not come by": (
        "ip rule add iif br0 blackhole",
        "ip rule del iif br0 blackhole",
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_rules_of_routing(lab: Lab, name: str) -> None:
    begin, end = POLICIES[name]
    try:
        wrong, unjudged = disagreements(lab, f"set -e\n{begin}\n{_SENT_ON}{_MARKS}", ROUTED)
        assert not wrong, "\n".join(wrong)
        assert unjudged == 0
    finally:
        undone = lab.load(end)
        lab.clear(legacy=False)
    assert undone.returncode == 0, undone.stderr


def test_what_of_routing_cannot_be_judged_is_unknown_with_its_rule(lab: Lab) -> None:
    begin = "ip rule add tos 0x10 lookup 100; ip route add blackhole default table 100"
    try:
        assert lab.load(f"set -e\n{begin}\n{_SENT_ON}").returncode == 0
        reach = lab.observe().ruleset.reach(interface="eth0")
        decision, rules = reach.at(ROUTED[0].point(0))
        assert decision is Decision.UNKNOWN
        assert any("tos 0x10 lookup 100" in rule for rule in rules), rules
        # The table of own addresses is asked before.
        assert reach.at(ROUTED[2].point(0))[0] is Decision.ACCEPTED
    finally:
        undone = lab.load("ip rule del tos 0x10; ip route flush table 100")
        lab.clear(legacy=False)
    assert undone.returncode == 0, undone.stderr
