"""sudo: what each account may really do, by the rules that sudo itself reads.

cvtsudoers(1), which comes with sudo, follows includes, expands aliases and prints JSON; sudoers(5)
says how its entries are read: of several that match, the last counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.permission import AccountRights, Permission
from pytest_nixos.observe.text import read_json
from pytest_nixos.observe.writers import (
    READ_ACCOUNTS,
    STAT_PATHS,
    Accounts,
    parse_accounts,
    parse_entries,
)

__all__ = ["SudoRights", "sudo_rights"]

Json = Any

_READ = (
    r"""
[ -e /etc/sudoers ] || exit 3
convert=$(command -v cvtsudoers || ls /run/current-system/sw/bin/cvtsudoers) || exit 4
"""
    + READ_ACCOUNTS
    + r"""
title host; read -r host </proc/sys/kernel/hostname; printf '%s\n' "$host" "${host%%.*}"
title rules
rules=$("$convert" -e -f json /etc/sudoers) || exit 5
printf '%s\n' "$rules"
declare -A commands=()
while IFS= read -r command; do commands[/${command#*/}]=1; done < <(grep -oE '"command": *"/[^" ]+' <<< "$rules")
paths=("${!commands[@]}")
"""
    + STAT_PATHS
    + "title complete\ntrue\n"
)
_NO_SUDO, _NO_CONVERTER = 3, 4
#: sudoers(5), timestamp_timeout.
_REMEMBERED_MIN = 5.0
#: A wildcard in the name of a directory stands for whatever anybody makes.
_GLOB = re.compile(r"[*?\[][^/]*/")
_ANY = ("whoever has a directory of such a name",)


@dataclass(frozen=True, slots=True, kw_only=True)
class SudoRights(AccountRights):
    """What one account may do with sudo.

    :param remembers_min: minutes in which no password is asked for again; below 0 for ever.
    :param replaceable: commands that somebody beside root can change, each with who.
    """

    remembers_min: float
    replaceable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Reader:
    rules: Mapping[str, Json]
    accounts: Accounts
    hosts: frozenset[str]

    def is_account(self, entries: Iterable[Json], account: str) -> bool:
        """Whether a user list means an account; of its entries the last that matches counts.

        ``ALL`` means persons: that a service could run sudo, if it were let, is nobody's intention.
        """
        found = False
        for entry in _dicts(entries):
            if self._is_one(entry, account):
                found = not entry.get("negated")
        return found

    def _is_one(self, entry: Mapping[str, Json], account: str) -> bool:
        if "username" in entry:
            name = str(entry["username"])
            return name == account or (name == "ALL" and account in self.accounts.persons)
        if "userid" in entry:
            return bool(self.accounts.uids.get(account) == entry["userid"])
        if "usergroup" in entry:
            return str(entry["usergroup"]) in self.accounts.groups_of(account)
        if "usergid" in entry:
            gids = {self.accounts.groups[g][0] for g in self.accounts.groups_of(account)}
            return entry["usergid"] in gids
        return False

    def is_here(self, entries: Iterable[Json]) -> bool:
        """Whether a host list means this machine; a name that it cannot tell counts."""
        found = False
        for entry in _dicts(entries):
            name = str(entry.get("hostname", "ALL"))
            if name == "ALL" or name in self.hosts or "hostname" not in entry:
                found = not entry.get("negated")
        return found

    def setting(self, name: str, account: str, command: str = "") -> Json:
        """Return what the Defaults say of `name` for an account, ``None`` if nothing."""
        value: Json = None
        for entry in _dicts(self.rules.get("Defaults", [])):
            binding = list(_dicts(entry.get("Binding", [])))
            users = [b for b in binding if {"username", "userid", "usergroup", "usergid"} & set(b)]
            hosts = [b for b in binding if "hostname" in b or "networkaddr" in b]
            commands = [str(b["command"]) for b in binding if "command" in b]
            if (
                (users and not self.is_account(users, account))
                or (hosts and not self.is_here(hosts))
                or (commands and not {command, "ALL"} & set(commands))
            ):
                continue
            for option in _dicts(entry.get("Options", [])):
                value = option.get(name, value)
        return value

    def asks_of(self, account: str, command: str) -> bool:
        exempt = self.setting("exempt_group", account)
        if isinstance(exempt, str) and exempt in self.accounts.groups_of(account):
            return False
        return self.setting("authenticate", account, command) is not False

    def remembered(self, account: str) -> float:
        said = self.setting("timestamp_timeout", account)
        try:
            return _REMEMBERED_MIN if said is None else float(said)
        except (TypeError, ValueError):
            return _REMEMBERED_MIN

    def permissions(self, account: str) -> Sequence[Permission]:
        """Return what an account may run; a later rule takes the place of what it covers."""
        found: dict[tuple[str, tuple[str, ...]], Permission] = {}
        for spec in _dicts(self.rules.get("User_Specs", [])):
            if not self.is_account(spec.get("User_List", []), account):
                continue
            if not self.is_here(spec.get("Host_List", [])):
                continue
            for given in _dicts(spec.get("Cmnd_Specs", [])):
                self._apply(given, account, found)
        return tuple(found.values())

    def _apply(
        self,
        given: Mapping[str, Json],
        account: str,
        found: dict[tuple[str, tuple[str, ...]], Permission],
    ) -> None:
        said = [o["authenticate"] for o in _dicts(given.get("Options", [])) if "authenticate" in o]
        run_as = tuple(_run_as(given.get("runasusers", []))) or ("root",)
        for entry in _dicts(given.get("Commands", [])):
            command = str(entry.get("command") or entry.get("sudoedit") or "")
            covered = [key for key in found if command == "ALL" or key[0] == command]
            for key in covered:
                if set(key[1]) <= set(run_as) or "ALL" in run_as:
                    del found[key]
            if command and not entry.get("negated"):
                asks = bool(said[-1]) if said else self.asks_of(account, command)
                found[command, run_as] = Permission(command=command, run_as=run_as, asks=asks)


def sudo_rights(*, name: str = "sudo") -> Probe[Sequence[SudoRights] | str | None]:
    """Ask what each account but root may do with sudo, those that may do nothing left out.

    :return: probe of the rights; a text that says why the machine has none to ask for; ``None``
        where its answer cannot be read.
    """
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> Sequence[SudoRights] | str | None:
    if output.exit_status == _NO_SUDO:
        return "the machine has no /etc/sudoers"
    if output.exit_status == _NO_CONVERTER:
        return "the machine has no cvtsudoers, so that nobody tells what its rules mean (sudo-rs?)"
    records = dict(output.records)
    if "complete" not in records:
        return None
    try:
        rules = read_json(records.get("rules", ""))
    except ValueError:
        return None
    if not isinstance(rules, dict):
        return None
    accounts = parse_accounts(output.sections)
    reader = _Reader(rules, accounts, frozenset(records.get("host", "").split()))
    entries, links = parse_entries(records)
    if not accounts.has_root:
        return None
    rights = [
        SudoRights(
            account=account,
            in_wheel="wheel" in accounts.groups_of(account),
            permissions=tuple(may),
            remembers_min=reader.remembered(account),
            replaceable=tuple(
                f"{place}: {', '.join(who)}"
                for place in _places(may)
                if (who := _ANY if _GLOB.search(place) else accounts.writers(place, entries, links))
            ),
        )
        for account, uid in sorted(accounts.uids.items())
        if uid != 0 and (may := reader.permissions(account))
    ]
    asked = any(_places(one.permissions) for one in rights)
    return None if asked and "/" not in entries else rights


def _places(permissions: Iterable[Permission]) -> Sequence[str]:
    """Return the paths of the programs that run as root."""
    first = dict.fromkeys(p.command.split()[0] for p in permissions if p.as_root)
    return [place for place in first if place.startswith("/")]


def _run_as(entries: Iterable[Json]) -> Iterator[str]:
    for entry in _dicts(entries):
        if not entry.get("negated"):
            user = entry.get("username")
            yield str(user) if user is not None else f"#{entry.get('userid', '')}"


def _dicts(entries: object) -> Iterator[Mapping[str, Json]]:
    yield from (e for e in entries if isinstance(e, dict)) if isinstance(entries, list) else ()
