"""Random rulesets in the language of iptables."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.kernel.pools import INNER, NETS, OWN, SOURCES, port

__all__ = ["ipt_restore"]

_FOUR_ONLY = (
    *("-m ttl --ttl-eq 64", "-m ttl --ttl-lt 60", "-m ttl --ttl-gt 64", "-f", "! -f"),
    *("-m iprange --src-range 10.1.2.0-10.1.2.9", "-m iprange ! --src-range 10.0.0.0-203.0.113.7"),
    *("-m conntrack --ctorigdst 10.77.0.2", "-m conntrack --ctproto udp", "-m connmark --mark 0x0"),
    *("-m conntrack --ctdir ORIGINAL", "-m conntrack ! --ctstate NEW", "-s 10.0.0.0/255.255.0.0"),
)
_SIX_ONLY = ("-m hl --hl-eq 64", "-m hl --hl-lt 60", "-m hl --hl-gt 64", "-s fd00::/8")
_MARKS = ("MARK --set-xmark 0x1/0xffffffff", "MARK --set-xmark 0x2/0x2", "DROP", "ACCEPT")
_MANGLE = (
    "*mangle",
    *(f":{c} ACCEPT [0:0]" for c in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")),
)
_NAT = (
    "*nat",
    *(f":{c} ACCEPT [0:0]" for c in ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")),
)


def _ports() -> st.SearchStrategy[str]:
    return port().map(lambda p: p.replace("-", ":"))


def _port_tests() -> list[st.SearchStrategy[str]]:
    protocol, no = st.sampled_from(("tcp", "udp")), st.sampled_from(("", "! "))
    several = st.lists(_ports(), min_size=1, max_size=3, unique=True).map(",".join)
    single = st.tuples(protocol, no, st.sampled_from(("dport", "dport", "sport")), _ports())
    multi = st.tuples(protocol, no, st.sampled_from(("dports", "sports", "ports")), several)
    return [
        single.map(lambda t: f"-p {t[0]} -m {t[0]} {t[1]}--{t[2]} {t[3]}"),
        multi.map(lambda t: f"-p {t[0]} -m multiport {t[1]}--{t[2]} {t[3]}"),
    ]


def _test(family: int) -> st.SearchStrategy[str]:
    icmp = "-p icmp -m icmp --icmp-type" if family == 4 else "-p icmpv6 -m icmp6 --icmpv6-type"
    kinds = (
        ("echo-request", "any", "timestamp-request")
        if family == 4
        else ("echo-request", "redirect")
    )
    states = ("NEW", "ESTABLISHED,RELATED", "INVALID", "NEW,UNTRACKED", "DNAT")
    fixed = (
        *(f"-s {source}" for source in (*SOURCES[family], *NETS[family])),
        *(f"! -s {net}" for net in NETS[family]),
        *(f"-d {own}" for own in OWN[family]),
        *(f"-p {protocol}" for protocol in ("tcp", "udp", "esp", "icmp")),
        *(f"{icmp} {kind}" for kind in kinds),
        *(f"-m conntrack --ctstate {state}" for state in states),
        *("-p tcp -m tcp --syn", "-p tcp -m tcp ! --syn", "-p tcp -m tcp --tcp-flags SYN,ACK ACK"),
        *("-m mark --mark 0x1", "-m mark --mark 0x2/0x2", "-m state --state NEW"),
        *("-m addrtype --dst-type LOCAL", "-m addrtype ! --dst-type LOCAL"),
        *("-m pkttype --pkt-type unicast", "-m length --length 0:60"),
        '-m comment --comment "it\'s a -j DROP"',
        "-m limit --limit 1/hour --limit-burst 1000",
        *(_FOUR_ONLY if family == 4 else _SIX_ONLY),
    )
    interfaces = st.sampled_from(("-i eth0", "-i eth1", "-i eth+", "-i wg0", "! -i eth0"))
    return st.one_of(*_port_tests(), *_port_tests(), interfaces, st.sampled_from(fixed))


@st.composite
def _rule(draw: st.DrawFn, chain: str, targets: Sequence[str], family: int) -> str:
    tests: list[str] = []
    for test in draw(st.lists(_test(family), max_size=2)):
        taken = {
            word for t in tests for word in t.split() if word in ("-p", "-s", "-d", "-i", "-f")
        }
        if not taken & set(test.split()):
            tests.append(test)
    # iptables wants -p before what needs it.
    tests.sort(key=lambda t: not t.startswith("-p"))
    return " ".join([f"-A {chain}", *tests, f"-j {draw(st.sampled_from(targets))}"])


@st.composite
def _nat_rule(draw: st.DrawFn, family: int) -> str:
    protocol = draw(st.sampled_from(("tcp", "udp")))
    inner, own = INNER[family], OWN[family][0]
    to = draw(st.sampled_from((22, 80, 8080)))
    inner_port, own_port = (f"[{a}]:{to}" if family == 6 else f"{a}:{to}" for a in (inner, own))
    actions = (
        f"DNAT --to-destination {inner}",
        f"DNAT --to-destination {inner_port}",
        f"DNAT --to-destination {own_port}",
        "REDIRECT",
        f"REDIRECT --to-ports {to}",
        "ACCEPT",
        "RETURN",
    )
    more = draw(st.sampled_from(("", "-i eth0 ", "-i eth1 ", "-m addrtype --dst-type LOCAL ")))
    action = draw(st.sampled_from(actions))
    return f"-A PREROUTING {more}-p {protocol} -m {protocol} --dport {draw(_ports())} -j {action}"


@st.composite
def ipt_restore(draw: st.DrawFn, family: int) -> str:
    """Input for ``iptables-restore``: the table filter, perhaps mangle, raw and nat."""
    policy = st.sampled_from(("ACCEPT", "DROP", "DROP"))
    lines = ["*filter", f":INPUT {draw(policy)} [0:0]", f":FORWARD {draw(policy)} [0:0]"]
    lines += [":OUTPUT ACCEPT [0:0]", ":c0 - [0:0]", ":c1 - [0:0]"]
    ends = ["ACCEPT", "ACCEPT", "DROP", "RETURN", "REJECT", "LOG"]
    lines += draw(st.lists(_rule("c0", ends, family), max_size=3))
    lines += draw(st.lists(_rule("c1", [*ends, "c0"], family), max_size=3))
    lines += draw(st.lists(_rule("INPUT", [*ends, "c0", "c1"], family), min_size=1, max_size=5))
    lines += draw(st.lists(_rule("FORWARD", [*ends, "c0"], family), max_size=3))
    lines.append("COMMIT")
    if draw(st.booleans()):
        marking = draw(st.lists(_rule("PREROUTING", _MARKS, family), max_size=3))
        lines += [*_MANGLE, *marking, "COMMIT"]
    if draw(st.integers(0, 3)) == 0:
        untracked = draw(_rule("PREROUTING", ["CT --notrack"], family))
        lines += ["*raw", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", untracked, "COMMIT"]
    if draw(st.booleans()):
        sending = draw(st.lists(_nat_rule(family), min_size=1, max_size=3))
        lines += [*_NAT, *sending, "COMMIT"]
    return "\n".join(lines)
