"""iptables rules, from ``iptables-save`` and ``ip6tables-save`` into chains of the one language."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pytest_nixos.observe.firewall.ipset import IpSet
from pytest_nixos.observe.firewall.iptables_matches import (
    OPTIONS,
    SILENT_OPTIONS,
    Context,
    RememberedError,
    UnjudgedError,
)
from pytest_nixos.observe.firewall.iptables_targets import TARGETS
from pytest_nixos.observe.firewall.model import (
    TRACKED,
    Action,
    Chain,
    Chance,
    Match,
    Reason,
    Rule,
    Step,
    Tables,
    Test,
    Verdict,
    gathered,
)

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
    {"LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "CHECKSUM", "TCPMSS", "SET", "CLASSIFY"}
    | {"SECMARK", "CONNSECMARK", "IDLETIMER", "LED", "TEE", "RATEEST"}
    | {"TCPOPTSTRIP"}
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


def parse_iptables_save(
    text: str,
    *,
    family: int,
    sets: Mapping[str, IpSet] | None = None,
    filled: frozenset[str] = frozenset(),
    suffix: str = "",
) -> Tables:
    """Turn the output of ``iptables-save`` into chains by table (``ip filter``) and name.

    :param family: 4 or 6.
    :param sets: what ``ipset save`` shows.
    :param filled: the sets that rules fill or empty, by ``-j SET``.
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
            rule = _RuleReader(
                owner, line, chains, Context(family=family, sets=sets or {}, filled=filled)
            ).read()
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

    def __init__(self, table: str, line: str, chains: set[str], context: Context) -> None:
        self._table = table
        self._line = line
        self._chains = chains
        self._context = context
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
            steps=gathered(steps),
        )

    def _bare_modules(self) -> list[Step]:
        """Judge the modules that say something by their mere presence."""
        found: list[Step] = []
        for module in self._context.modules:
            if module in _LIMITS:
                found.append(Chance(Reason.LIMIT, module))
            elif module in _MEMORIES:
                found.append(Chance(Reason.MEMORY, module))
            elif module == "rpfilter":
                found.append(Match(((Test("honest", negated="--invert" in self._options),),)))
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
            self._context.modules.append(arguments[0] if arguments else "")
            return []
        self._options[option] = list(arguments)
        module = self._context.modules[-1] if self._context.modules else ""
        handler = OPTIONS.get(option)
        if handler is None:
            own = module in _LIMITS or module in _MEMORIES or module not in _PLAIN_MODULES
            silent = own or option in SILENT_OPTIONS
            return [] if silent else [_unknown(f"{option} {' '.join(arguments)}".strip())]
        if module and module not in _PLAIN_MODULES and option.startswith("--"):
            return []  # an option of a module that is judged as a whole
        try:
            alternatives = handler(self._context, list(arguments))
        except RememberedError as err:
            return [Chance(Reason.MEMORY, str(err))]
        except (UnjudgedError, ValueError, IndexError) as err:
            return [_unknown(str(err) or f"{option} {' '.join(arguments)}")]
        found: list[Step] = [Match(alternatives, negated=negated)]
        if option in _OF_CONNECTIONS or (option == "--mark" and module == "connmark"):
            found.insert(0, Match(((Test("ctstate", TRACKED),),)))
        return found

    def _target(self, option: str, name: str, rest: Sequence[str]) -> list[Step]:
        options = _pairs(rest)
        if name in self._chains:
            return [Action(Verdict.GOTO if option in ("-g", "--goto") else Verdict.JUMP, name)]
        if name in _VERDICTS:
            return [Action(_VERDICTS[name])]
        if name in _SILENT_TARGETS or not name:
            return []
        if name in TARGETS:
            return TARGETS[name](options)
        # A program decides, or an extension that we do not know.
        return [
            Chance(Reason.UNKNOWN, f"what {name} does"),
            Chance(Reason.UNKNOWN, f"whether {name} accepts", Verdict.DROP),
            Action(Verdict.ACCEPT),
        ]


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
