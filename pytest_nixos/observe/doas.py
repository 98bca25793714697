"""doas: what each account may really do, by the rules in ``/etc/doas.conf``.

doas.conf(5): of the rules that match, the last decides; where none matches, nothing is allowed. One
line that doas cannot read makes it refuse everything.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.permission import AccountRights, Permission
from pytest_nixos.observe.text import lines
from pytest_nixos.observe.writers import READ_ACCOUNTS, Accounts, parse_accounts

__all__ = ["DoasRule", "doas_rights", "read_rules"]

_READ = (
    r"""
[ -e /etc/doas.conf ] || exit 3
"""
    + READ_ACCOUNTS
    + r"""
title rules
text=$(</etc/doas.conf) || exit 5
printf '%s\n' "$text"
title complete
true
"""
)
_NO_DOAS = 3
_OPTIONS = frozenset({"nopass", "nolog", "persist", "keepenv"})
#: A command, or an argument, that no rule names.
_ANOTHER = "\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoasRule:
    """One line of the file.

    :param identity: an account's name or number, after ``:`` a group's.
    :param target: whom the command is run as, ``None`` for anybody.
    :param command: ``None`` for any.
    :param arguments: those that have to be given, ``None`` for any.
    """

    permits: bool
    asks: bool
    identity: str
    target: str | None = None
    command: str | None = None
    arguments: tuple[str, ...] | None = None

    def is_about(self, account: str, accounts: Accounts) -> bool:
        """Whether its identity means an account."""
        name = self.identity.removeprefix(":")
        if not self.identity.startswith(":"):
            return name in (account, str(accounts.uids.get(account)))
        groups = accounts.groups_of(account)
        return name in groups or name in {str(accounts.groups[g][0]) for g in groups}

    def matches(self, command: str, arguments: tuple[str, ...], target: str) -> bool:
        """Whether it decides about a command line."""
        return (
            self.target in (None, target)
            and self.command in (None, command)
            and self.arguments in (None, arguments)
        )


def doas_rights(*, name: str = "doas") -> Probe[Sequence[AccountRights] | str | None]:
    """Ask what each account but root may do with doas, those that may do nothing left out.

    :return: probe of the rights; a text that says why the machine has none to ask for; ``None``
        where the rules cannot be read.
    """
    return Probe(name=name, script=_READ, parse=_parse)


def read_rules(text: str) -> Sequence[DoasRule] | None:
    """Read ``doas.conf``; ``None`` where a line is none of its language."""
    try:
        return [_rule(line) for line in lines(text.replace("\\\n", " ")) if line[0] != "#"]
    except ValueError:
        return None


def _rule(line: str) -> DoasRule:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.quotes = True, '"'
    words = iter(list(lexer))
    action = next(words, "")
    if action not in ("permit", "deny"):
        raise ValueError(action)
    options, identity = _options(words) if action == "permit" else (set[str](), _next(words))
    if {"nopass", "persist"} <= options:
        raise ValueError("nopass and persist exclude each other")
    target = command = None
    arguments: tuple[str, ...] | None = None
    for word in words:
        if word == "as" and target is command is None:
            target = _next(words)
        elif word == "cmd" and command is None:
            command = _next(words)
        elif word == "args" and command is not None:
            arguments = tuple(words)
        else:
            raise ValueError(word)
    return DoasRule(
        permits=action == "permit", asks="nopass" not in options, identity=identity,
        target=target, command=command, arguments=arguments,
    )  # fmt: skip


def _options(words: Iterator[str]) -> tuple[set[str], str]:
    """Read the options of a rule, and the identity that ends them."""
    found: set[str] = set()
    for word in words:
        if word == "setenv":
            if _next(words) != "{":
                raise ValueError(word)
            while _next(words) != "}":
                pass
        elif word in _OPTIONS:
            found.add(word)
        else:
            return found, word
    raise ValueError("no identity")


def _next(words: Iterator[str]) -> str:
    word = next(words, None)
    if word is None:
        raise ValueError("the line ends early")
    return word


def _parse(output: ProbeOutput) -> Sequence[AccountRights] | str | None:
    if output.exit_status == _NO_DOAS:
        return "the machine has no /etc/doas.conf"
    records = dict(output.records)
    rules = read_rules(records.get("rules", ""))
    if "complete" not in records or rules is None:
        return None
    accounts = parse_accounts(output.sections)
    if not accounts.has_root:
        return None
    return [
        AccountRights(
            account=account, in_wheel="wheel" in accounts.groups_of(account), permissions=tuple(may)
        )
        for account, uid in sorted(accounts.uids.items())
        if uid != 0
        and (own := [rule for rule in rules if rule.is_about(account, accounts)])
        and (may := list(_permissions(own)))
    ]


def _permissions(rules: Sequence[DoasRule]) -> Iterator[Permission]:
    """Try each command that a rule names, and one that none does, as each account that one does.

    :param rules: those of one account.
    """
    tried: set[tuple[str, tuple[str, ...]]] = {(_ANOTHER, (_ANOTHER,))}
    for rule in rules:
        command = rule.command or _ANOTHER
        tried |= {(command, (_ANOTHER,)), (command, rule.arguments or ())}
    for target in sorted({"root", *(rule.target or "root" for rule in rules)}):
        found: dict[str, bool] = {}
        for command, arguments in sorted(tried):
            last = next((r for r in reversed(rules) if r.matches(command, arguments, target)), None)
            if last is not None and last.permits:
                words = _words(command, arguments)
                found[words] = last.asks and found.get(words, True)
        every = found.get("ALL")
        for words, asks in found.items():
            if words == "ALL" or asks != every:
                yield Permission(command=words, run_as=(target,), asks=asks)


def _words(command: str, arguments: tuple[str, ...]) -> str:
    """Name a command line as sudo does, any command ``ALL``, any arguments none."""
    if command == _ANOTHER:
        return "ALL"
    return command if arguments in ((), (_ANOTHER,)) else shlex.join((command, *arguments))
