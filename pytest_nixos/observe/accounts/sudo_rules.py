"""What sudo's rules mean for an account, as sudoers(5) says: of several that match, the last counts.

Whom or where a rule means cannot always be told: a netgroup, a network. Such a rule gives, and what
it gives is told under its own name; it takes nothing away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import msgspec

from pytest_nixos.observe.accounts.command_pattern import covers, may_mean_the_same
from pytest_nixos.observe.accounts.permission import Permission
from pytest_nixos.observe.filesystems.writers import Accounts

__all__ = ["SudoRules"]

Json: TypeAlias = Any
_Entry: TypeAlias = Mapping[str, Json]
#: sudoers(5), timestamp_timeout.
_REMEMBERED_MIN = 5.0
_USERS = frozenset({"username", "userid", "usergroup", "usergid", "netgroup", "nonunixgroup"})
_TIME = re.compile(r"\d{14}Z")


class _Use(msgspec.Struct, frozen=True):
    """A command that an account may run, and as whom."""

    account: str
    command: str
    run_as: tuple[str, ...]
    groups: frozenset[str] = frozenset()

    def covers(self, other: _Use) -> bool:
        """Whether a rule about it certainly decides about another of the same account."""
        if not covers(self.command, other.command):
            return False
        if not ("ALL" in self.groups or other.groups <= self.groups):
            return False
        plain = not any(who.startswith("!") for who in self.run_as)
        as_whom = "ALL" in self.run_as or set(other.run_as) <= set(self.run_as)
        return self.run_as == other.run_as or (plain and as_whom)


class SudoRules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one machine.

    :param rules: as ``cvtsudoers -e -f json`` prints them.
    :param marks: what stands behind each ``Defaults``: ``>`` for whom a command is run as, which
        JSON does not tell from who runs it. Without them both are meant.
    :param hosts: the machine's names.
    :param now: ``YYYYMMDDHHMMSSZ``.
    """

    rules: Mapping[str, Json]
    marks: Sequence[str]
    accounts: Accounts
    hosts: frozenset[str]
    now: str = ""

    def unlisted(self) -> Sequence[str]:
        """Return users, groups and netgroups that rules are about and nobody lists, each as rules
        write it.
        """
        specs = _dicts(self.rules.get("User_Specs", []))
        given = [e for s in specs for e in _dicts(s.get("User_List", [])) if not e.get("negated")]
        known, gids = self.accounts, {gid for gid, _ in self.accounts.groups.values()}
        names = [
            _written(entry)
            for entry in given
            if entry.get("username") not in (*known.uids, "ALL", "")
            and entry.get("userid") not in known.uids.values()
            and entry.get("usergroup") not in known.groups
            and entry.get("usergid") not in gids
        ]
        return [name for name in dict.fromkeys(names) if name]

    def permissions(self, account: str) -> Sequence[Permission]:
        """Return what an account may run; a later rule takes the place of what it covers."""
        found: dict[_Use, Permission] = {}
        for spec in _dicts(self.rules.get("User_Specs", [])):
            users, hosts = spec.get("User_List", []), spec.get("Host_List", [])
            if not (self._is_account(users, account) and self._is_here(hosts)):
                continue
            is_sure = self._is_account(users, account, sure=True) and self._is_here(
                hosts, sure=True
            )
            for given in _dicts(spec.get("Cmnd_Specs", [])):
                self._apply(given, account, found, is_sure=is_sure)
        return tuple(dict.fromkeys(found.values()))

    def remembered(self, account: str, permissions: Iterable[Permission]) -> float:
        """Return for how many minutes no password is asked again, at most; below 0 for ever."""
        uses = [_Use(account, one.command, one.run_as) for one in permissions]
        said = [
            _minutes(self._setting("timestamp_timeout", use, worse=_is_longer))
            for wide in uses
            for use in (wide, *self._bound_parts(wide))
        ]
        return max(said, key=_lasts, default=_REMEMBERED_MIN)

    def _apply(
        self, given: _Entry, account: str, found: dict[_Use, Permission], *, is_sure: bool
    ) -> None:
        options = {k: v for option in _dicts(given.get("Options", [])) for k, v in option.items()}
        ends = str(options.get("notafter", ""))
        if _TIME.fullmatch(ends) and _TIME.fullmatch(self.now) and ends < self.now:
            return
        is_sure = is_sure and not {"notafter", "notbefore"} & set(options)
        groups = frozenset(_written(entry) for entry in _dicts(given.get("runasgroups", [])))
        for entry in _dicts(given.get("Commands", [])):
            command = str(entry.get("command") or entry.get("sudoedit") or "")
            use = _Use(account, command, self._run_as(given, account, command), groups)
            # With a digest, a rule is about one content of the file.
            if is_sure and set(entry) <= {"command", "sudoedit", "negated"}:
                for old in [old for old in found if use.covers(old)]:
                    del found[old]
            if not command or entry.get("negated") or (use in found and not found[use].asks):
                continue
            found[use] = self._permission(use, options.get("authenticate"))
            for part in self._bound_parts(use):
                if not (one := self._permission(part, options.get("authenticate"))).asks:
                    found[part] = one

    def _permission(self, use: _Use, said: Json) -> Permission:
        asks = not self._is_exempt(use) and bool(self._authenticates(use) if said is None else said)
        return Permission(command=use.command, run_as=use.run_as, asks=asks)

    def _bound_parts(self, use: _Use) -> Iterator[_Use]:
        """Yield commands that the Defaults name, of those that a wider rule gives."""
        for entry in _dicts(self.rules.get("Defaults", [])):
            for bound in _dicts(entry.get("Binding", [])):
                part = _Use(use.account, str(bound.get("command", "")), use.run_as, use.groups)
                is_part = part.command not in ("", use.command) and use.covers(part)
                if is_part and not bound.get("negated"):
                    yield part

    def _authenticates(self, use: _Use) -> bool:
        said = self._setting("authenticate", use, worse=lambda new, _: new is False)
        return said is not False

    def _is_exempt(self, use: _Use) -> bool:
        groups = self.accounts.groups_of(use.account)
        group = self._setting("exempt_group", use, worse=lambda new, _: new in groups)
        return isinstance(group, str) and (group in groups or use.account == f"%{group}")

    def _run_as(self, given: _Entry, account: str, command: str) -> tuple[str, ...]:
        """Return whom a rule lets an account be; of a group of accounts, its members."""
        if "runasusers" in given:
            names = dict.fromkeys(n for e in _dicts(given["runasusers"]) for n in self._whom(e))
            return tuple(names) or (account,)
        if "runasgroups" in given:
            return (account,)
        use = _Use(account, command, ("root",))
        said = self._setting("runas_default", use, worse=lambda new, _: new == "root")
        return tuple(self._whom({"username": said or "root"}))

    def _whom(self, entry: _Entry) -> Iterator[str]:
        name, known = _written(entry), self.accounts
        gid = known.groups.get(str(entry.get("usergroup")), (entry.get("usergid"), ()))[0]
        if "username" in entry or "userid" in entry:
            uid = entry.get("userid", known.uids.get(name))
            same = next((n for n, u in known.uids.items() if u == uid), name)
            names = ["root"] if known.is_root(name) else [same] if same else []
        elif gid in {number for number, _ in known.groups.values()}:
            names = sorted("root" if known.is_root(n) else n for n in known.members(gid))
        else:  # nobody tells who is in it: root may be
            names = [] if entry.get("negated") else ["root", name]
        yield from (f"!{n}" if entry.get("negated") else n for n in names)

    def _is_account(self, entries: Json, account: str, *, sure: bool = False) -> bool:
        """Whether a user list means an account; of its entries the last that matches counts.

        ``ALL`` means persons: that a service could run sudo, if it were let, is nobody's intention.
        """
        found = False
        for entry in _dicts(entries):
            if self._is_one(entry, account):
                found = not entry.get("negated")
            elif sure and entry.get("negated") and not _is_clear(entry):
                found = False
        return found

    def _is_one(self, entry: _Entry, account: str) -> bool:
        known = self.accounts
        if _written(entry) == account:
            return True
        if "username" in entry:
            is_person = account in known.persons or account not in known.uids
            return bool(entry["username"] == "ALL" and is_person)
        if "userid" in entry:
            return bool(known.uids.get(account) == entry["userid"])
        if "usergroup" in entry:
            return str(entry["usergroup"]) in known.groups_of(account)
        gids = {known.groups[g][0] for g in known.groups_of(account)}
        return entry.get("usergid") in gids

    def _is_here(self, entries: Json, *, sure: bool = False) -> bool:
        """Whether a host list means this machine; a name that it cannot tell may."""
        found = False
        for entry in _dicts(entries):
            name, negated = entry.get("hostname"), bool(entry.get("negated"))
            if name is None:
                found = found and not negated if sure else found or not negated
            elif name == "ALL" or any(fnmatchcase(host, str(name)) for host in self.hosts):
                found = not negated
        return found

    def _setting(self, name: str, use: _Use, *, worse: Callable[[Json, Json], bool]) -> Json:
        """Return what the Defaults say of `name`, ``None`` if nothing.

        :param worse: whether a value counts, beside another, where nobody can tell if it is meant.
        """
        entries = list(_dicts(self.rules.get("Defaults", [])))
        marks = self.marks if len(self.marks) == len(entries) else ["?"] * len(entries)
        value: Json = None
        for rank in range(3):  # sudoers(5): those for whom it is run as, then those for commands
            for entry, mark in zip(entries, marks, strict=True):
                for is_sure in self._binds(entry, mark, use, rank):
                    for option in _dicts(entry.get("Options", [])):
                        if name in option and (is_sure or worse(option[name], value)):
                            value = option[name]
        return value

    def _binds(self, entry: _Entry, mark: str, use: _Use, rank: int) -> Iterator[bool]:
        """Yield, where Defaults of a rank are meant for a use, whether that is sure."""
        binding = list(_dicts(entry.get("Binding", [])))
        commands = [b for b in binding if "command" in b]
        users = [b for b in binding if _USERS & set(b)]
        if commands:
            if rank == 2 and _may_bind(commands, use.command):
                yield _surely_binds(commands, use.command)
        elif rank == 0 and (not users or mark == "@"):
            if not binding or self._is_here(binding):
                yield not binding or self._is_here(binding, sure=True)
        elif rank == 0 and mark != ">":
            unclear = any(not _is_clear(b) and not b.get("negated") for b in users)
            if self._is_account(users, use.account) or unclear:
                yield mark == ":" and self._is_account(users, use.account, sure=True)
        elif rank == 1 and users and mark in (">", "?") and self._is_whom(users, use):
            yield False

    def _is_whom(self, users: Sequence[_Entry], use: _Use) -> bool:
        """Whether a list may mean one of those that a command can be run as."""
        named = {n for entry in users if not entry.get("negated") for n in self._whom(entry)}
        can_be = {n for n in named if f"!{n}" not in use.run_as}
        return bool("ALL" in named or can_be & set(use.run_as) or ("ALL" in use.run_as and can_be))


def _may_bind(commands: Sequence[_Entry], command: str) -> bool:
    """Whether Defaults for commands are meant; those for a part of a wider rule are not."""
    found = False
    for entry in commands:
        bound = str(entry["command"])
        if entry.get("negated"):
            found = found and not covers(bound, command)
        elif may_mean_the_same(bound, command):
            found = found or bound == command or not covers(command, bound)
    return found


def _surely_binds(commands: Sequence[_Entry], command: str) -> bool:
    found = False
    for entry in commands:
        bound = str(entry["command"])
        if entry.get("negated"):
            found = found and not may_mean_the_same(bound, command)
        elif set(entry) == {"command"}:
            found = found or covers(bound, command)
    return found


def _is_clear(entry: _Entry) -> bool:
    """Whether the lists of accounts and groups tell whom an entry means."""
    return bool({"username", "userid", "usergroup", "usergid"} & set(entry))


def _written(entry: _Entry) -> str:
    """Write an entry of a list as rules do."""
    signs = {"username": "", "userid": "#", "usergroup": "%", "usergid": "%#", "netgroup": "+",
             "nonunixgroup": "%:"}  # fmt: skip
    return next((f"{sign}{entry[key]}" for key, sign in signs.items() if key in entry), "")


def _minutes(said: Json) -> float:
    try:
        return _REMEMBERED_MIN if said is None else float(said)
    except (TypeError, ValueError):
        return _REMEMBERED_MIN


def _lasts(minutes: float) -> float:
    return float("inf") if minutes < 0 else minutes


def _is_longer(new: Json, old: Json) -> bool:
    return _lasts(_minutes(new)) > _lasts(_minutes(old))


def _dicts(entries: Json) -> Iterator[_Entry]:
    yield from (e for e in entries if isinstance(e, dict)) if isinstance(entries, list) else ()
