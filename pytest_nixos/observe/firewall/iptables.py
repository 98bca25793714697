"""iptables rules, from ``iptables-save`` and ``ip6tables-save`` into chains of the one language."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence

from pytest_nixos.observe.firewall.ipset import IpSet, set_tests
from pytest_nixos.observe.firewall.model import (
    TRACKED,
    Action,
    Assign,
    Chain,
    Chance,
    Match,
    Nat,
    Notrack,
    Reason,
    Rule,
    Step,
    Tables,
    Test,
    Verdict,
)
from pytest_nixos.observe.firewall.names import NAMES, PROTOCOLS
from pytest_nixos.observe.firewall.spans import Spans, joined, only, parse_network, whole

__all__ = ["parse_iptables_save"]

_HOOKS = {
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "PREROUTING": "prerouting",
    "POSTROUTING": "postrouting",
}
_PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
_VERDICTS = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "REJECT": Verdict.REJECT,
    "RETURN": Verdict.RETURN,
}
# Targets of extensions that do not decide; a chain may not have these names.
_SILENT_TARGETS = frozenset(
    {"LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "CHECKSUM", "TCPMSS", "SET", "CLASSIFY", "DSCP"}
    | {"TOS", "TTL", "HL", "SECMARK", "CONNSECMARK", "IDLETIMER", "LED", "TEE", "RATEEST"}
    | {"TCPOPTSTRIP", "ECN", "HMARK"}
)
# Modules without an option of their own that decides: what they allow is said by options.
_LIMITS = frozenset({"limit", "hashlimit", "connlimit", "quota", "connbytes", "rateest", "quota2"})
_MEMORIES = frozenset({"recent"})
_PLAIN_MODULES = frozenset(
    {"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "comment", "multiport"}
    | {"conntrack", "state", "set", "addrtype", "iprange", "mark", "connmark", "pkttype", "ttl"}
    | {"hl", "length", "rpfilter", "nfacct"}
)
# A packet that belongs to no connection has none of these.
_OF_CONNECTIONS = frozenset(
    {"--ctdir", "--ctstatus", "--ctorigsrc", "--ctorigdst", "--ctorigsrcport", "--ctorigdstport"}
)
_EVERY_BIT = (1 << 32) - 1
_HONEST = {"UNICAST"}


class _UnjudgedError(Exception):
    """A condition that a packet alone does not tell."""


def parse_iptables_save(
    text: str, *, family: int, sets: Mapping[str, IpSet] | None = None, suffix: str = ""
) -> Tables:
    """Turn the output of ``iptables-save`` into chains by table (``ip filter``) and name.

    :param family: 4 or 6.
    :param sets: what ``ipset save`` shows.
    :param suffix: for the table's name, to tell the kernel's two iptables apart.
    """
    policies: dict[tuple[str, str], Verdict | None] = {}
    lines: dict[str, list[str]] = {}
    table = ""
    for line in text.split("\n"):
        if line.startswith("*"):
            table = f"{'ip' if family == 4 else 'ip6'} {line[1:].strip()}{suffix}"
        elif line.startswith(":") and table:
            name, _, rest = line[1:].partition(" ")
            policies[table, name] = _VERDICTS.get(rest.split(" ")[0])
        elif line.startswith("-A ") and table:
            lines.setdefault(table, []).append(line)
    rules: dict[tuple[str, str], list[Rule]] = {}
    for owner, found in lines.items():
        chains = {name for t, name in policies if t == owner}
        for line in found:
            rule = _RuleReader(owner, line, chains, family, sets or {}).read()
            rules.setdefault((owner, rule.chain), []).append(rule)
    tables: dict[str, dict[str, Chain]] = {}
    for (owner, name), policy in policies.items():
        kind = owner.removesuffix(suffix).split(" ")[1] if suffix else owner.split(" ")[1]
        tables.setdefault(owner, {})[name] = Chain(
            table=owner,
            name=name,
            rules=tuple(rules.get((owner, name), ())),
            families=(family,),
            hook=_HOOKS.get(name, "") if policy is not None else "",
            policy=policy or Verdict.ACCEPT,
            # Tables see a packet in the order raw, mangle, nat, filter, security.
            priority=_PRIORITIES.get(kind, -100),
            kind="nat" if kind == "nat" else "filter",
        )
    return tables


class _RuleReader:
    """Reads the words of one rule."""

    def __init__(
        self, table: str, line: str, chains: set[str], family: int, sets: Mapping[str, IpSet]
    ) -> None:
        self._table = table
        self._line = line
        self._chains = chains
        self._family = family
        self._sets = sets
        self._modules: list[str] = []
        self._options: dict[str, list[str]] = {}

    def read(self) -> Rule:
        try:
            words = shlex.split(self._line)
        except ValueError:
            words = self._line.split()  # an odd quote
        steps: list[Step] = []
        negated = False
        at = 2
        while at < len(words):
            option, arguments = words[at], _arguments(words, at + 1)
            at += 1 + len(arguments)
            if option == "!":
                negated = True
                continue
            if option in ("-j", "-g", "--jump", "--goto"):
                # What follows belongs to the target.
                name = arguments[0] if arguments else ""
                steps += self._bare_modules()
                steps += self._target(option, name, words[at:])
                break
            steps += self._condition(option, arguments, negated=negated)
            negated = False
        else:
            steps += self._bare_modules()
        return Rule(
            table=self._table,
            chain=words[1] if len(words) > 1 else "",
            text=self._line,
            steps=tuple(steps),
        )

    def _bare_modules(self) -> list[Step]:
        """Judge the modules that say something by their mere presence."""
        found: list[Step] = []
        for module in self._modules:
            if module in _LIMITS:
                found.append(Chance(Reason.LIMIT, module))
            elif module in _MEMORIES:
                found.append(Chance(Reason.MEMORY, module))
            elif module == "rpfilter":
                # The class is one of honest senders: the way back to them is the way that they came.
                found.append(Match(((),), negated="--invert" in self._options))
            elif module not in _PLAIN_MODULES:
                found += self._policy() if module == "policy" else [_unknown(f"-m {module}")]
        return found

    def _policy(self) -> list[Step]:
        """Judge ``-m policy``: a stranger's packet did not come out of IPsec."""
        if self._options.get("--pol") == ["none"] and self._options.get("--dir") == ["in"]:
            return []
        if self._options.get("--pol") == ["ipsec"] and self._options.get("--dir") == ["in"]:
            return [Match(())]
        return [_unknown("-m policy")]

    def _condition(self, option: str, arguments: Sequence[str], *, negated: bool) -> list[Step]:
        if option in ("-m", "--match"):
            self._modules.append(arguments[0] if arguments else "")
            return []
        self._options[option] = list(arguments)
        module = self._modules[-1] if self._modules else ""
        handler = _OPTIONS.get(option)
        if handler is None:
            own = module in _LIMITS or module in _MEMORIES or module not in _PLAIN_MODULES
            silent = own or option in _SILENT_OPTIONS
            return [] if silent else [_unknown(f"{option} {' '.join(arguments)}".strip())]
        if module and module not in _PLAIN_MODULES and option.startswith("--"):
            return []  # an option of a module that is judged as a whole
        try:
            alternatives = handler(self, list(arguments))
        except (_UnjudgedError, ValueError, IndexError) as err:
            return [_unknown(str(err) or f"{option} {' '.join(arguments)}")]
        found: list[Step] = [Match(alternatives, negated=negated)]
        if option in _OF_CONNECTIONS or (option == "--mark" and module == "connmark"):
            found.insert(0, Match(((Test("ctstate", TRACKED),),)))
        return found

    # What the options test.

    def _set(self, arguments: Sequence[str]) -> tuple[tuple[Test, ...], ...]:
        name, directions = arguments[0], arguments[1].split(",")
        tests = set_tests(self._sets, name, directions, family=self._family)
        if tests is None:
            raise _UnjudgedError(f"the set {name}")
        return tests

    def _tcp_flags(self, arguments: Sequence[str]) -> tuple[tuple[Test, ...], ...]:
        mask, wanted = (_tcp_bits(text) for text in arguments[:2])
        return ((Test("tcp.flags", only(wanted), mask=mask),),)

    def _target(self, option: str, name: str, rest: Sequence[str]) -> list[Step]:
        options = _pairs(rest)
        if name in self._chains:
            return [Action(Verdict.GOTO if option in ("-g", "--goto") else Verdict.JUMP, name)]
        if name in _VERDICTS:
            return [Action(_VERDICTS[name])]
        if name in _SILENT_TARGETS or not name:
            return []
        if name in _TARGETS:
            return _TARGETS[name](options)
        # A program decides, or an extension that we do not know.
        return [
            Chance(Reason.UNKNOWN, f"what {name} does"),
            Chance(Reason.UNKNOWN, f"whether {name} accepts", Verdict.DROP),
            Action(Verdict.ACCEPT),
        ]


Handler = Callable[[_RuleReader, list[str]], tuple[tuple[Test, ...], ...]]


def _unknown(about: str) -> Chance:
    return Chance(Reason.UNKNOWN, about)


def _arguments(words: Sequence[str], start: int) -> Sequence[str]:
    end = start
    while end < len(words) and words[end] != "!" and not _is_option(words[end]):
        end += 1
    return words[start:end]


def _is_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not word[1:2].isdigit()


def _pairs(words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    while at < len(words):
        arguments = _arguments(words, at + 1) if _is_option(words[at]) else []
        found[words[at]] = arguments[0] if arguments else ""
        at += 1 + len(arguments)
    return found


def _interface(dimension: str) -> Handler:
    def read(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
        name = arguments[0]
        pattern = f"{name[:-1]}*" if name.endswith("+") else name
        return ((Test(dimension, names=(pattern,)),),)

    return read


def _protocol(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
    name = arguments[0]
    if name in ("all", "0"):
        return ((),)
    number = PROTOCOLS.get(name, -1) if not name.isdecimal() else int(name)
    if number < 0:
        raise _UnjudgedError(f"the protocol {name}")
    return ((Test("protocol", only(number)),),)


def _address(dimension: str) -> Handler:
    def read(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
        return ((Test(dimension, parse_network(arguments[0])),),)

    return read


def _port(*dimensions: str) -> Handler:
    def read(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
        spans = _port_list(arguments[0])
        return tuple((Test(dimension, spans),) for dimension in dimensions)

    return read


def _named(dimension: str) -> Handler:
    """Any of the names, which are bits."""

    def read(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
        bits = 0
        status = 0
        for name in arguments[0].lower().replace("_", "-").split(","):
            if dimension == "ctstate" and name in ("snat", "dnat"):
                status |= NAMES["ctstatus"][name]
            elif name in NAMES[dimension]:
                bits |= NAMES[dimension][name]
            elif name != "none":
                raise _UnjudgedError(f"{dimension} {name}")
        found = [(Test(dimension, only(0), negated=True, mask=bits),)] if bits else []
        if status:
            found.append((Test("ctstatus", only(0), negated=True, mask=status),))
        return tuple(found)

    return read


def _icmp(kind: str) -> Handler:
    def read(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
        name, slash, code = arguments[0].partition("/")
        if name in ("any", "255"):
            return ((),)
        number = int(name) if name.isdecimal() else NAMES[f"{kind}.type"].get(name, -1)
        if number < 0:
            raise _UnjudgedError(f"the ICMP type {name}")
        tests = [Test(f"{kind}.type", only(number))]
        if slash:
            tests.append(Test(f"{kind}.code", only(int(code))))
        return (tuple(tests),)

    return read


def _marked(dimension: str) -> Handler:
    def read(reader: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
        del reader
        value, _, mask = arguments[0].partition("/")
        bits = int(mask, 0) if mask else _EVERY_BIT
        return ((Test(dimension, only(int(value, 0)), mask=bits),),)

    return read


def _address_type(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
    kinds = set(arguments[0].split(","))
    found = [(Test("local"),)] if "LOCAL" in kinds else []
    return (*found, *([(Test("local", negated=True),)] if "UNICAST" in kinds else []))


def _source_type(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
    return ((),) if _HONEST & set(arguments[0].split(",")) else ()


def _packet_type(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
    return ((Test("pkttype", only(NAMES["pkttype"][arguments[0]])),),)


def _direction(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
    return ((),) if arguments[0] == "ORIGINAL" else ()


def _range(dimension: str) -> Handler:
    def read(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
        return ((Test(dimension, _number_range(arguments[0])),),)

    return read


def _bounded(dimension: str, *, below: bool) -> Handler:
    def read(_: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
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


def _anything(_: _RuleReader, __: list[str]) -> tuple[tuple[Test, ...], ...]:
    return ((),)


def _nothing(_: _RuleReader, __: list[str]) -> tuple[tuple[Test, ...], ...]:
    return ()


_SILENT_OPTIONS = frozenset(
    {"--comment", "--validmark", "--loose", "--invert", "--accept-local", "--nfacct-name"}
    | {"--return-nomatch"}
)
_OPTIONS: dict[str, Handler] = {
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
    "--tcp-flags": _RuleReader._tcp_flags,  # noqa: SLF001  # its own table
    "--syn": lambda reader, _: reader._tcp_flags(["FIN,SYN,RST,ACK", "SYN"]),  # noqa: SLF001
    "--match-set": _RuleReader._set,  # noqa: SLF001
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


def _mark_handler(reader: _RuleReader, arguments: list[str]) -> tuple[tuple[Test, ...], ...]:
    module = next((m for m in reversed(reader._modules) if m in ("mark", "connmark")), "mark")  # noqa: SLF001
    return _marked("mark" if module == "mark" else "ctmark")(reader, arguments)


_OPTIONS["--mark"] = _mark_handler


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


def _mark(dimension: str, options: Mapping[str, str]) -> Assign:
    try:
        if "--set-xmark" in options or "--set-mark" in options:
            exact = "--set-mark" in options
            value, _, mask = options["--set-mark" if exact else "--set-xmark"].partition("/")
            bits = int(mask, 0) if mask else _EVERY_BIT
            number = int(value, 0)
            keep = ~bits & _EVERY_BIT
            if exact:
                keep &= ~number & _EVERY_BIT
            return Assign(dimension, dimension, keep, number)
        if "--and-mark" in options:
            return Assign(dimension, dimension, int(options["--and-mark"], 0), 0)
        if "--or-mark" in options:
            number = int(options["--or-mark"], 0)
            return Assign(dimension, dimension, ~number & _EVERY_BIT, number)
        if "--xor-mark" in options:
            return Assign(dimension, dimension, _EVERY_BIT, int(options["--xor-mark"], 0))
    except ValueError:
        pass
    return Assign(dimension, known=False)


def _connmark(options: Mapping[str, str]) -> Assign:
    masks = (int(options.get(k) or "-1", 0) for k in ("--nfmask", "--ctmask", "--mask"))
    masked = any(mask not in (-1, _EVERY_BIT) for mask in masks)
    if "--save-mark" in options:
        return Assign("ctmark", "mark", _EVERY_BIT, known=not masked)
    if "--restore-mark" in options:
        return Assign("mark", "ctmark", _EVERY_BIT, known=not masked)
    return _mark("ctmark", options)


def _dnat(text: str) -> Nat:
    """Read ``--to-destination 10.0.0.1:80``; nothing at all (``()``) stands for what cannot be read."""
    address, port = text, ""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        where = parse_network(address) if address else None
    except ValueError:
        where = ()
    return Nat(address=where, port=_port_range(port or None))


def _port_range(text: str | None) -> Spans | None:
    if not text:
        return None
    first, dash, last = text.partition("/")[0].partition("-")
    try:
        return joined([(int(first), int(last if dash else first))])
    except ValueError:
        return whole(65535)


def _tproxy(_: Mapping[str, str]) -> list[Step]:
    """Accept where a transparent proxy listens, and drop where none does."""
    return [
        Assign("mark", known=False),
        Chance(Reason.UNKNOWN, "whether a transparent proxy listens", Verdict.DROP),
        Action(Verdict.ACCEPT),
    ]


_TARGETS: Mapping[str, Callable[[Mapping[str, str]], list[Step]]] = {
    "MARK": lambda options: [_mark("mark", options)],
    "CONNMARK": lambda options: [_connmark(options)],
    "CT": lambda options: [Notrack()] if "--notrack" in options else [],
    "NOTRACK": lambda _: [Notrack()],
    "DNAT": lambda options: [_dnat(options.get("--to-destination", ""))],
    "NETMAP": lambda options: [_dnat(options.get("--to", ""))],
    "REDIRECT": lambda options: [
        Nat(port=_port_range(options.get("--to-ports")), is_redirect=True)
    ],
    "MASQUERADE": lambda _: [Action(Verdict.ACCEPT)],
    "SNAT": lambda _: [Action(Verdict.ACCEPT)],
    "TPROXY": _tproxy,
}
