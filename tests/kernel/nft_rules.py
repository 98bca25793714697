"""Random rulesets in nft's language."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.kernel.pools import INNER, INTERFACES, NETS, OWN, PORTS, SOURCES, port

__all__ = ["nft_ruleset"]

_NUMBERS = {"ip": 4, "ip6": 6}
_SETS = """
set ports { type inet_service; flags interval; elements = { 22, 80-443, 40000-65535 }; }
set four { type ipv4_addr; flags interval; elements = { 10.0.0.0/9, 192.168.5.5, 203.0.113.0-203.0.113.9 }; }
set six { type ipv6_addr; flags interval; elements = { 2001:db8::/33, fd77::9 }; }
set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 22-80, 203.0.113.7 . 443 }; }
set filled { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
map ends { type inet_service : verdict; elements = { 22 : accept, 53 : drop, 8080 : return }; }
"""
_FAMILY_CLUES = {"ip": ("ip ", "icmp "), "ip6": ("ip6 ", "icmpv6 ")}
_PROTOCOL_CLUES = (
    *("tcp ", "udp ", "icmp ", "icmpv6 ", "esp", "l4proto", "ip protocol", "ip6 nexthdr"),
)
_MARKS = ("meta mark set 0x1", "meta mark set meta mark or 0x2", "ct mark set 0x1")
_LIMITS = ("limit rate 1/hour burst 1000 packets", "limit rate over 9999/second")


def _texts(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


def _values(one: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(one, min_size=1, max_size=3, unique=True)
    return st.one_of(
        one, one, several.map(lambda v: f"{{ {', '.join(v)} }}"), one.map(lambda v: f"!= {v}")
    )


def _family_tests(family: str) -> list[st.SearchStrategy[str]]:
    number = _NUMBERS[family]
    shared = [
        _values(st.sampled_from((*SOURCES[number], *NETS[number]))).map(
            lambda v: f"{family} saddr {v}"
        ),
        _texts(*(f"{family} daddr {own}" for own in OWN[number])),
    ]
    if family == "ip6":
        return [
            *shared,
            _texts("echo-request", "!= nd-redirect", "{ echo-request, nd-neighbor-solicit }").map(
                lambda v: f"icmpv6 type {v}"
            ),
            _texts("ip6 saddr @six", "ip6 saddr != @six"),
            _texts("ip6 hoplimit 64", "ip6 hoplimit > 64", "ip6 nexthdr tcp", "ip6 dscp cs1"),
        ]
    return [
        *shared,
        _texts("ip saddr 10.1.2.0-10.1.2.9", "ip saddr 192.0.0.0-203.0.113.255"),
        _texts(
            "echo-request", "destination-unreachable", "{ echo-request, timestamp-request }"
        ).map(lambda v: f"icmp type {v}"),
        _texts("ip ttl 64", "ip ttl < 60", "ip ttl != 64", "ip dscp cs1", "ip dscp != cs0"),
        _texts("ip length > 60", "ip protocol tcp", "ip protocol != udp", "ip protocol esp"),
        _texts("ip frag-off & 0x1fff != 0", "ip daddr 10.77.0.0/24", "ip saddr @filled"),
        _texts("ip saddr @four", "ip saddr != @four", "ip saddr . tcp dport @pairs"),
        st.sampled_from(PORTS).map(
            lambda p: f"ip saddr . tcp dport {{ 10.1.2.3 . {p}, 10.0.0.0/9 . 1-99 }}"
        ),
    ]


def _port_tests() -> list[st.SearchStrategy[str]]:
    protocol = _texts("tcp", "udp")
    compared = st.tuples(protocol, _texts(">=", "<", ">", "<="), st.sampled_from(PORTS[:-1]))
    return [
        st.tuples(protocol, _texts("dport", "dport", "sport"), _values(port())).map(" ".join),
        compared.map(lambda t: f"{t[0]} dport {t[1]} {t[2]}"),
        port().map(lambda p: f"meta l4proto {{ tcp, udp }} th dport {p}"),
        _texts("tcp dport @ports", "udp dport != @ports", "tcp sport @ports"),
    ]


def _test(families: Sequence[str]) -> st.SearchStrategy[str]:
    states = ("new", "established,related", "invalid", "untracked", "new,untracked", "!= new")
    marks = ("0x0", "0x1", "!= 0x1", "0x3", "and 0x2 == 0x2", "and 0x2 == 0x0")
    more = [
        _values(_texts("tcp", "udp", "icmp", "ipv6-icmp", "esp")).map(
            lambda v: f"meta l4proto {v}"
        ),
        _values(_texts("eth0", "eth1")).map(lambda v: f"iifname {v}"),
        _texts(*INTERFACES).map(lambda v: f'iifname "{v}"'),
        _texts('iif "eth1"', "meta nfproto ipv4", "meta nfproto ipv6"),
        _texts(*states, "{ new, invalid }").map(lambda v: f"ct state {v}"),
        _texts(*marks).map(lambda v: f"meta mark {v}"),
        _texts("tcp flags syn", "tcp flags & (fin|syn|rst|ack) == syn"),
        _texts("tcp flags & (syn|ack) == ack", "tcp dport & 1 == 1", "udp dport & 0xff00 == 0x0"),
        _texts("fib daddr type local", "fib daddr type != local", "fib saddr type local"),
        _texts("fib saddr . iif oif exists", "ct direction original", "ct status dnat"),
        _texts("ct mark 0x1", "ct mark 0x0", "meta length > 60", "meta pkttype unicast"),
        _texts("meta pkttype { broadcast, multicast }"),
        st.sampled_from(PORTS).map(lambda p: f"meta l4proto tcp ct original proto-dst {p}"),
        st.sampled_from(PORTS).map(
            lambda p: f'iifname . tcp dport {{ "eth0" . {p}, "eth1" . 1-99 }}'
        ),
    ]
    own = [test for family in families for test in _family_tests(family)]
    return st.one_of(*_port_tests(), *_port_tests(), *more, *own)


def _fitting(tests: Sequence[str], families: Sequence[str]) -> list[str]:
    """Leave out tests that nft would refuse beside the ones before: another family, another
    protocol.
    """
    found: list[str] = []
    chosen: set[str] = set()
    for test in tests:
        family = next((f for f, clues in _FAMILY_CLUES.items() if test.startswith(clues)), "")
        if "nfproto" in test:
            if len(families) == 1:
                continue
            family = {"ipv4": "ip", "ipv6": "ip6"}[test.split()[-1]]
        other = {"ip": "ip6", "ip6": "ip"}.get(family, "none")
        protocol = "protocol" if any(clue in test for clue in _PROTOCOL_CLUES) else "none"
        if other in chosen or protocol in chosen:
            continue
        chosen |= {family, protocol} - {"", "none"}
        found.append(test)
    return found


@st.composite
def _tests(draw: st.DrawFn, families: Sequence[str], most: int) -> list[str]:
    return _fitting(draw(st.lists(_test(families), max_size=most)), families)


@st.composite
def _rule(draw: st.DrawFn, families: Sequence[str], below: Sequence[str], hook: str) -> str:
    words = draw(_tests(families, 3))
    verdicts = ["accept", "accept", "drop", "return"]
    verdicts += ["reject"] if hook in ("input", "forward") else []
    verdicts += [f"{kind} {chain}" for chain in below for kind in ("jump", "goto")]
    end = draw(st.sampled_from(verdicts))
    kind = draw(st.integers(0, 29))
    if kind < 3:
        words.append(draw(st.sampled_from(_MARKS)))
        return " ".join([*words, *([end] if draw(st.booleans()) else [])])
    if kind < 6:
        return draw(_verdict_map([v for v in verdicts if v != "reject"]))
    if kind < 8 and not any(clue in word for word in words for clue in _PROTOCOL_CLUES):
        return " ".join([*words, "meta mark set tcp dport map { 22 : 0x1, 80-443 : 0x3 }"])
    if kind == 8:
        words.append(draw(st.sampled_from(_LIMITS)))
    if kind == 9 and families == ("ip",) and hook == "input":
        return " ".join([*words, "add @filled { ip saddr }"])
    if kind == 10:
        return " ".join([*words, "counter", "continue"])
    return " ".join([*words, end])


@st.composite
def _verdict_map(draw: st.DrawFn, verdicts: Sequence[str]) -> str:
    verdict = st.sampled_from(verdicts)
    match draw(st.integers(0, 3)):
        case 0:
            ports = draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=3, unique=True))
            pairs = ", ".join(f"{number} : {draw(verdict)}" for number in ports)
            return f"{draw(_texts('tcp', 'udp'))} dport vmap {{ {pairs} }}"
        case 1:
            states = ("invalid", "established", "related", "new", "untracked")
            pairs = ", ".join(f"{state} : {draw(verdict)}" for state in states)
            return f"ct state vmap {{ {pairs} }}"
        case 2:
            return draw(_texts("tcp dport vmap @ends", "udp dport vmap @ends"))
        case _:
            first, second = draw(verdict), draw(verdict)
            pairs = f'"eth0" . 22 : {first}, "eth1" . 80-443 : {second}'
            return f"iifname . tcp dport vmap {{ {pairs} }}"


@st.composite
def _nat_rule(draw: st.DrawFn, family: str, families: Sequence[str]) -> str:
    word = draw(st.sampled_from(families))
    number = _NUMBERS[word]
    protocol = draw(_texts("tcp", "udp"))
    match = f"{protocol} dport {draw(port())}"
    more = _fitting([match, draw(_test((word,)))], (word,))
    inner, own = INNER[number], OWN[number][0]
    target = draw(st.sampled_from((22, 80, 8080)))
    inner_port, own_port = (
        f"[{a}]:{target}" if number == 6 else f"{a}:{target}" for a in (inner, own)
    )
    of = f" {word}" if family == "inet" else ""
    actions = [
        "redirect",
        f"redirect to :{target}",
        "accept",
        f"dnat{of} to {inner}",
        f"dnat{of} to {inner_port}",
        f"dnat{of} to {own_port}",
        f"dnat{of} to {protocol} dport map {{ 22 : {inner}, 80 : {own} }}",
    ]
    return " ".join([*more[1:], match, draw(st.sampled_from(actions))])


@st.composite
def _base(
    draw: st.DrawFn, hook: str, family: str, families: Sequence[str], below: Sequence[str]
) -> list[str]:
    """A base chain."""
    if hook == "nat":
        rules = draw(st.lists(_nat_rule(family, families), min_size=1, max_size=3))
        return [
            "chain nat {",
            "type nat hook prerouting priority dstnat; policy accept;",
            *rules,
            "}",
        ]
    if hook == "raw":
        end = draw(_texts("notrack", "drop", "meta mark set 0x1"))
        rule = " ".join([*draw(_tests(families, 2)), end])
        return ["chain raw {", "type filter hook prerouting priority raw;", rule, "}"]
    early = hook == "prerouting"
    priority = draw(st.sampled_from((-150, -140, 0) if early else (-10, 0, 5)))
    policy = draw(_texts("accept", "accept", "drop") if early else _texts("accept", "drop", "drop"))
    rules = draw(st.lists(_rule(families, below, hook), min_size=1, max_size=6))
    head = f"type filter hook {hook} priority {priority}; policy {policy};"
    return [f"chain {hook} {{", head, *rules, "}"]


@st.composite
def _table(draw: st.DrawFn, number: int) -> str:
    family = draw(_texts("inet", "inet", "inet", "ip", "ip6"))
    families = ("ip", "ip6") if family == "inet" else (family,)
    lines = [f"table {family} t{number} {{", _SETS]
    below: list[str] = []
    for index in range(draw(st.integers(0, 2))):
        rules = draw(st.lists(_rule(families, tuple(below), ""), max_size=4))
        lines += [f"chain c{index} {{", *rules, "}"]
        below.append(f"c{index}")
    hooks = _texts("input", "input", "prerouting", "forward", "nat", "raw")
    for hook in draw(st.lists(hooks, min_size=1, max_size=3, unique=True)):
        lines += draw(_base(hook, family, families, tuple(below)))
    return "\n".join([*lines, "}"])


@st.composite
def _ingress(draw: st.DrawFn) -> str:
    early = _test(("ip", "ip6")).filter(_stands_early)
    tests = _fitting(draw(st.lists(early, max_size=2)), ("ip", "ip6"))
    rule = " ".join([*tests, draw(_texts("drop", "accept", "meta mark set 0x1"))])
    head = f'type filter hook ingress device "{draw(_texts("eth0", "eth1"))}" priority 0;'
    return f"table netdev early {{\nchain ingress {{\n{head}\n{rule}\n}}\n}}"


def _stands_early(test: str) -> bool:
    """Whether a test can stand where nothing is known but the packet."""
    return not any(word in test for word in ("ct ", "fib", "@", "nfproto", "iif"))


@st.composite
def nft_ruleset(draw: st.DrawFn) -> str:
    """One or two tables, perhaps with a chain at a card's own hook."""
    tables = [draw(_table(number)) for number in range(draw(st.integers(1, 2)))]
    if draw(st.integers(0, 5)) == 0:
        tables.append(draw(_ingress()))
    return "\n".join(tables)
