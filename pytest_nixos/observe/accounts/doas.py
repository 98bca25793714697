"""doas: what each account may really do, by the rules in ``/etc/doas.conf``.

doas.conf(5): of the rules that match, the last decides; where none matches, nothing is allowed. One
line that doas cannot read makes it refuse everything.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from pytest_nixos.observe.accounts.permission import AccountRights, Permission
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.filesystems.writers import READ_ACCOUNTS, Accounts, parse_accounts
from pytest_nixos.observe.text import whole

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
_KEYWORDS = _OPTIONS | {"permit", "deny", "as", "cmd", "args", "setenv"}
#: A command, an argument or an account that no rule names.
_ANOTHER = "\0"


class _Token(NamedTuple):
    text: str
    is_word: bool


class DoasRule(msgspec.Struct, frozen=True, kw_only=True):
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
            uid = accounts.uids.get(account, -1)
            return name == account or accounts.uids.get(name, whole(name)) == uid
        gids = {accounts.groups[g][0] for g in accounts.groups_of(account)}
        return accounts.groups.get(name, (whole(name), ()))[0] in gids

    def is_of_nobody_listed(self, accounts: Accounts) -> bool:
        """Whether its identity is one that no list of accounts has: a domain may."""
        name = self.identity.removeprefix(":")
        if self.identity.startswith(":"):
            known = name in accounts.groups or whole(name) in {
                g for g, _ in accounts.groups.values()
            }
        else:
            known = name in accounts.uids or whole(name) in accounts.uids.values()
        return not known and name.isprintable()

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
    if "\0" in text:
        return None
    try:
        return [_rule(line) for line in _token_lines(text)]
    except ValueError:
        return None


def _token_lines(text: str) -> Iterator[list[_Token]]:
    r"""Yield the tokens of each line that has any, as OpenDoas' ``yylex`` does: a comment ends with
    its line, whatever stands there; elsewhere ``\`` takes the end of a line away.
    """
    found: list[_Token] = []
    rest = iter(text.rstrip("\n") + "\n")
    character = next(rest)
    while character:
        if character == "#":
            while character != "\n":
                character = next(rest)
        if character == "\n":
            if found:
                yield found
            found, character = [], next(rest, "")
        elif character in " \t":
            character = next(rest)
        elif character in "{}":
            found.append(_Token(character, is_word=False))
            character = next(rest)
        else:
            token, character = _word(character, rest)
            found += [token] if token else []


def _word(character: str, rest: Iterator[str]) -> tuple[_Token | None, str]:
    r"""Read a word, and the character that ended it. With quotes, or after an ``\`` at the end of a
    line, it is no keyword.
    """
    word, quoted, joined, is_open, escaped = "", False, False, False, False
    while True:
        if character == "\\" and not escaped:
            escaped = True
        elif character == "\n" and escaped:
            joined, escaped = True, False
        elif character == "\n" and is_open:
            raise ValueError("quotes that do not end")
        elif character == "\n" or (character in "{}# \t" and not escaped and not is_open):
            if word or quoted:
                return _Token(word, quoted or joined or word not in _KEYWORDS), character
            if character not in " \t":
                return None, character
        elif character == '"' and not escaped:
            quoted, is_open = True, not is_open
        else:
            word, escaped = word + character, False
        character = next(rest, "")
        if not character:
            raise ValueError("an escape that does not end")


def _rule(line: Sequence[_Token]) -> DoasRule:
    words = iter(line)
    action = next(words)
    if action not in (("permit", False), ("deny", False)):
        raise ValueError(action)
    options, identity = _options(words) if action.text == "permit" else (set[str](), _next(words))
    if {"nopass", "persist"} <= options:
        raise ValueError("nopass and persist exclude each other")
    target = command = None
    arguments: tuple[str, ...] | None = None
    for word in words:
        if word == ("as", False) and target is command is None:
            target = _next(words)
        elif word == ("cmd", False) and command is None:
            command = _next(words)
        elif word == ("args", False) and command is not None:
            rest = list(words)
            if not all(token.is_word for token in rest):
                raise ValueError(rest)
            arguments = tuple(token.text for token in rest)
        else:
            raise ValueError(word)
    return DoasRule(
        permits=action.text == "permit", asks="nopass" not in options, identity=identity,
        target=target, command=command, arguments=arguments,
    )  # fmt: skip


def _options(words: Iterator[_Token]) -> tuple[set[str], str]:
    """Read the options of a rule, and the identity that ends them."""
    found: set[str] = set()
    for word in words:
        if word.is_word:
            return found, word.text
        if word.text in _OPTIONS:
            found.add(word.text)
        elif (
            word == ("setenv", False)
            and word.text not in found
            and next(words, None) == ("{", False)
        ):
            found.add(word.text)
            while (variable := next(words, None)) != ("}", False):
                if variable is None or not variable.is_word:
                    raise ValueError("a list that does not end")
        else:
            raise ValueError(word)
    raise ValueError("no identity")


def _next(words: Iterator[_Token]) -> str:
    word = next(words, None)
    if word is None or not word.is_word:
        raise ValueError("no word where one has to be")
    return word.text


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
    rules = [replace(rule, target=_one_name(rule.target, accounts)) for rule in rules]
    identities = [rule.identity for rule in rules if rule.is_of_nobody_listed(accounts)]
    whose = {
        account: [rule for rule in rules if rule.is_about(account, accounts)]
        for account in accounts.names
    }
    for one in identities:
        whose.setdefault(one, [rule for rule in rules if rule.identity == one])
    return [
        AccountRights(
            account=account, in_wheel="wheel" in accounts.groups_of(account), permissions=tuple(may)
        )
        for account, own in whose.items()
        if own and (may := list(_permissions(own)))
    ]


def _one_name(target: str | None, accounts: Accounts) -> str | None:
    """Give an account one name, though a rule has its number, or another name of it."""
    if target is None or accounts.is_root(target):
        return target and "root"
    uid = accounts.uids.get(target, whole(target))
    return next((name for name, number in accounts.uids.items() if number == uid), target)


def _permissions(rules: Sequence[DoasRule]) -> Iterator[Permission]:
    """Try each command that a rule names, and one that none does, as each account that one does.

    :param rules: those of one account.
    """
    as_root = list(_permissions_as("root", rules))
    yield from as_root
    told = {(one.command, one.asks) for one in as_root}
    for target in sorted({_ANOTHER, *(rule.target or "root" for rule in rules)} - {"root"}):
        for one in _permissions_as(target, rules):
            if (one.command, one.asks) not in told:
                whom = "another account" if target == _ANOTHER else target
                yield replace(one, run_as=(whom,))


def _permissions_as(target: str, rules: Sequence[DoasRule]) -> Iterator[Permission]:
    tried: set[tuple[str, tuple[str, ...]]] = {(_ANOTHER, (_ANOTHER,))}
    for rule in rules:
        command = rule.command or _ANOTHER
        tried |= {(command, (_ANOTHER,)), (command, rule.arguments or ())}
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
