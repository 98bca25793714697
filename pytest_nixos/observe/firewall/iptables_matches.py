"""What the options of iptables' matches test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pytest_nixos.observe.firewall.ipset import IpSet, set_tests
from pytest_nixos.observe.firewall.model import Test
from pytest_nixos.observe.firewall.names import NAMES, PROTOCOLS
from pytest_nixos.observe.firewall.nft_values import destination_types
from pytest_nixos.observe.firewall.spans import Spans, joined, only, parse_network

__all__ = ["OPTIONS", "SILENT_OPTIONS", "Context", "RememberedError", "UnjudgedError"]

_EVERY_BIT = (1 << 32) - 1
_HONEST = {"UNICAST"}

Alternatives = tuple[tuple[Test, ...], ...]


class UnjudgedError(Exception):
    """A condition that a packet alone does not tell."""


class RememberedError(UnjudgedError):
    """A condition that hangs on what rules remember of earlier packets."""


@dataclass(slots=True, kw_only=True)
class Context:
    """What an option's meaning depends on.

    :param family: 4 or 6.
    :param sets: what ``ipset save`` shows.
    :param filled: names of those that rules themselves fill or empty.
    :param modules: the modules named before it in its rule.
    """

    family: int
    sets: Mapping[str, IpSet]
    filled: frozenset[str] = frozenset()
    modules: list[str] = field(default_factory=list)


Handler = Callable[[Context, list[str]], Alternatives]


def _set(context: Context, arguments: list[str]) -> Alternatives:
    name, directions = arguments[0], arguments[1].split(",")
    if name in context.filled:
        raise RememberedError(f"rules fill the set {name}")
    tests = set_tests(context.sets, name, directions, family=context.family)
    if tests is None:
        raise UnjudgedError(f"the set {name}")
    return tests


def _tcp_flags(_: Context, arguments: list[str]) -> Alternatives:
    mask, wanted = (_tcp_bits(text) for text in arguments[:2])
    return ((Test("tcp.flags", only(wanted), mask=mask),),)


def _syn(context: Context, _: list[str]) -> Alternatives:
    return _tcp_flags(context, ["FIN,SYN,RST,ACK", "SYN"])


def _interface(dimension: str) -> Handler:
    def read(_: Context, arguments: list[str]) -> Alternatives:
        name = arguments[0]
        pattern = f"{name[:-1]}*" if name.endswith("+") else name
        return ((Test(dimension, names=(pattern,)),),)

    return read


def _protocol(_: Context, arguments: list[str]) -> Alternatives:
    name = arguments[0]
    if name in ("all", "0"):
        return ((),)
    number = PROTOCOLS.get(name, -1) if not name.isdecimal() else int(name)
    if number < 0:
        raise UnjudgedError(f"the protocol {name}")
    return ((Test("protocol", only(number)),),)


def _address(dimension: str) -> Handler:
    def read(_: Context, arguments: list[str]) -> Alternatives:
        return ((Test(dimension, parse_network(arguments[0])),),)

    return read


def _port(*dimensions: str) -> Handler:
    def read(_: Context, arguments: list[str]) -> Alternatives:
        spans = _port_list(arguments[0])
        return tuple((Test(dimension, spans),) for dimension in dimensions)

    return read


def _named(dimension: str) -> Handler:
    """Any of the names, which are bits."""

    def read(_: Context, arguments: list[str]) -> Alternatives:
        bits = 0
        status = 0
        for name in arguments[0].lower().replace("_", "-").split(","):
            if dimension == "ctstate" and name in ("snat", "dnat"):
                status |= NAMES["ctstatus"][name]
            elif name in NAMES[dimension]:
                bits |= NAMES[dimension][name]
            elif name != "none":
                raise UnjudgedError(f"{dimension} {name}")
        found = [(Test(dimension, only(0), negated=True, mask=bits),)] if bits else []
        if status:
            found.append((Test("ctstatus", only(0), negated=True, mask=status),))
        return tuple(found)

    return read


def _icmp(kind: str) -> Handler:
    def read(_: Context, arguments: list[str]) -> Alternatives:
        name, slash, code = arguments[0].partition("/")
        if name in ("any", "255"):
            return ((),)
        number = int(name) if name.isdecimal() else NAMES[f"{kind}.type"].get(name, -1)
        if number < 0:
            raise UnjudgedError(f"the ICMP type {name}")
        tests = [Test(f"{kind}.type", only(number))]
        if slash:
            tests.append(Test(f"{kind}.code", only(int(code))))
        return (tuple(tests),)

    return read


def _marked(dimension: str) -> Handler:
    def read(context: Context, arguments: list[str]) -> Alternatives:
        del context
        value, _, mask = arguments[0].partition("/")
        bits = int(mask, 0) if mask else _EVERY_BIT
        return ((Test(dimension, only(int(value, 0)), mask=bits),),)

    return read


def _address_type(_: Context, arguments: list[str]) -> Alternatives:
    return destination_types(arguments[0].lower().split(","))


def _source_type(_: Context, arguments: list[str]) -> Alternatives:
    return ((),) if _HONEST & set(arguments[0].split(",")) else ()


def _packet_type(_: Context, arguments: list[str]) -> Alternatives:
    return ((Test("pkttype", only(NAMES["pkttype"][arguments[0]])),),)


def _direction(_: Context, arguments: list[str]) -> Alternatives:
    return ((),) if arguments[0] == "ORIGINAL" else ()


def _range(dimension: str) -> Handler:
    def read(_: Context, arguments: list[str]) -> Alternatives:
        return ((Test(dimension, _number_range(arguments[0])),),)

    return read


def _bounded(dimension: str, *, below: bool) -> Handler:
    def read(_: Context, arguments: list[str]) -> Alternatives:
        value = int(arguments[0])
        return ((Test(dimension, joined([(0, value - 1) if below else (value + 1, 255)])),),)

    return read


def _hops(*, below: bool | None) -> Mapping[str, Handler]:
    names = {None: "eq", True: "lt", False: "gt"}
    found: dict[str, Handler] = {}
    for option, dimension in (("--ttl-", "ip.ttl"), ("--hl-", "ip6.hoplimit")):
        handler = _range(dimension) if below is None else _bounded(dimension, below=below)
        found[option + names[below]] = handler
    return found


def _anything(_: Context, __: list[str]) -> Alternatives:
    return ((),)


def _nothing(_: Context, __: list[str]) -> Alternatives:
    return ()


SILENT_OPTIONS = frozenset(
    {"--comment", "--validmark", "--loose", "--invert", "--accept-local", "--nfacct-name"}
    | {"--return-nomatch"}
)
OPTIONS: dict[str, Handler] = {
    **dict.fromkeys(("-i", "--in-interface"), _interface("iif")),
    **dict.fromkeys(("-o", "--out-interface"), _interface("oif")),
    **dict.fromkeys(("-p", "--protocol"), _protocol),
    **dict.fromkeys(("-s", "--source", "--src-range"), _address("saddr")),
    **dict.fromkeys(("-d", "--destination", "--dst-range"), _address("daddr")),
    **dict.fromkeys(
        ("--dport", "--dports", "--destination-port", "--destination-ports"), _port("dport")
    ),
    **dict.fromkeys(("--sport", "--sports", "--source-port", "--source-ports"), _port("sport")),
    **dict.fromkeys(("--ports", "--port"), _port("sport", "dport")),
    **dict.fromkeys(("--ctstate", "--state"), _named("ctstate")),
    "--ctstatus": _named("ctstatus"),
    "--ctdir": _direction,
    "--ctproto": _protocol,
    "--ctorigsrc": _address("ct.saddr"),
    "--ctorigdst": _address("ct.daddr"),
    "--ctorigsrcport": _port("ct.sport"),
    "--ctorigdstport": _port("ct.dport"),
    "--icmp-type": _icmp("icmp"),
    "--icmpv6-type": _icmp("icmpv6"),
    "--tcp-flags": _tcp_flags,
    "--syn": _syn,
    "--match-set": _set,
    "--dst-type": _address_type,
    "--src-type": _source_type,
    "--limit-iface-in": _anything,
    "--pkt-type": _packet_type,
    "--length": _range("meta.length"),
    "-f": _nothing,
    "--fragment": _nothing,
    **_hops(below=None),
    **_hops(below=True),
    **_hops(below=False),
}


def _mark_handler(context: Context, arguments: list[str]) -> Alternatives:
    module = next((m for m in reversed(context.modules) if m in ("mark", "connmark")), "mark")
    return _marked("mark" if module == "mark" else "ctmark")(context, arguments)


OPTIONS["--mark"] = _mark_handler


def _port_list(text: str) -> Spans:
    spans = []
    for part in text.split(","):
        first, colon, last = part.partition(":")
        spans.append((int(first or 0), int((last or 65535) if colon else first)))
    return joined(spans)


def _number_range(text: str) -> Spans:
    first, colon, last = text.partition(":")
    return joined([(int(first or 0), int((last or 65535) if colon else first))])


def _tcp_bits(text: str) -> int:
    if text in ("ALL", "NONE"):
        return 0x3F if text == "ALL" else 0
    bits = 0
    for name in text.lower().split(","):
        bits |= NAMES["tcp.flags"][name] if name in NAMES["tcp.flags"] else int(name, 0)
    return bits
