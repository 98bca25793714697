"""polkit: what each account may really do unasked, by what the machine's rules answer.

polkit(8): rules stand in files that are read in the order of their names; the first that answers
decides, and where none does, the action's own default. An account is asked about as it works in the
background, over a network and at the machine, since rules tell these apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec

from pytest_nixos.observe.accounts.polkit_rules import (
    AS_ROOT,
    Rules,
    Subject,
    unknown_subjects,
)
from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.filesystems.writers import READ_ACCOUNTS, Accounts, parse_accounts
from pytest_nixos.observe.text import whole

__all__ = ["Answers", "polkit_answers"]

_MAX_BYTES = 65536
_MOST_ACTIONS = 3000
#: In polkit's order; of the second and third only newer ones know.
_FOLDERS = (
    "/etc/polkit-1/rules.d",
    "/run/polkit-1/rules.d",
    "/usr/local/share/polkit-1/rules.d",
    "/run/current-system/sw/share/polkit-1/rules.d",
)
_NEWER = _FOLDERS[1:3]
_ENGINES = ("libduktape", "libmozjs")
_READ = (
    """
[ -d /etc/polkit-1 ] || exit 3
"""
    + READ_ACCOUNTS
    + rf"""
for folder in {" ".join(_FOLDERS)}; do
  for file in "$folder"/*.rules "$folder"/.*.rules; do
    [ -f "$file" ] || continue
    text=$(<"$file") || exit 5
    title rules; printf '%s\0%d\0%s' "$file" "${{#text}}" "${{text:0:{_MAX_BYTES}}}"
  done
done
title actions
grep -ohE '<action id="[A-Za-z0-9._-]+"' /run/current-system/sw/share/polkit-1/actions/*.policy | head -n {_MOST_ACTIONS}
title polkitd
for daemon in $(grep -ohE '^ExecStart=/[^ ]+/polkitd' /etc/systemd/system/polkit.service /etc/systemd/system/polkit.service.d/*.conf | tail -n 1); do
  grep -aoE '{"|".join((*_ENGINES, *_NEWER))}' "${{daemon#*=}}" | sort -u
done
title complete
true
"""
)
#: Name, number of its folder, text.
_File: TypeAlias = tuple[str, int, str]
_NO_POLKIT = 3
_NOBODY = 65534
_CLOSED = ("nologin", "false")
_FACTS = ("as-root", "to-anybody", "administrators")


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules answer.

    :param as_root: accounts that may do unasked what is as good as a root shell, each with what.
    :param to_anybody: actions that an account may do unasked which no rule names, service accounts
        too; who sits at the machine is named by that.
    :param administrators: accounts outside of wheel whose own password is an administrator's.
    :param unclear: what could not be told of each of these, each with its file.
    :param not_read: files that this machine's polkit does not read.
    """

    as_root: tuple[str, ...] = ()
    to_anybody: tuple[str, ...] = ()
    administrators: tuple[str, ...] = ()
    unclear: Mapping[str, tuple[str, ...]]
    not_read: tuple[str, ...] = ()


def polkit_answers(*, name: str = "polkit") -> Probe[Answers | str | None]:
    """Ask what the machine's rules for polkit answer.

    :return: probe of the answers; a text that says why the machine has none; ``None`` where its
        rules cannot be read.
    """
    return Probe(name=name, script=_READ, parse=_parse)


def _parse(output: ProbeOutput) -> Answers | str | None:
    if output.exit_status == _NO_POLKIT:
        return "the machine has no polkit"
    if "complete" not in dict(output.records):
        return None
    files = _files(output)
    if files is None:
        return None
    actions = [line.partition('"')[2].rstrip('"') for line in output.sections.get("actions", ())]
    accounts = parse_accounts(output.sections)
    if "root" not in accounts.uids or not accounts.groups:
        # Who there is could not be read whole; of nobody nothing would be found.
        return None
    words = set(output.sections.get("polkitd", ()))
    engines = [name for name in _ENGINES if name in words] or _ENGINES
    told = [
        _answers(Rules(chosen, actions, duktape=engine == _ENGINES[0]), accounts, actions)
        for engine in engines
        for chosen in _in_force(files, words)
    ]
    return _together(told)


def _in_force(files: Sequence[_File], words: set[str]) -> list[list[tuple[str, str]]]:
    """Return name and text of the files that polkit reads; both possibilities where it is not known
    whether it is one that reads the newer folders.
    """
    knows = [folder for folder in _NEWER if folder in words]
    all_of_them = [(name, body) for name, _, body in files]
    read = [
        (name, body)
        for name, folder, body in files
        if _FOLDERS[folder] not in _NEWER or _FOLDERS[folder] in knows
    ]
    is_known = bool(words & set(_ENGINES)) or read == all_of_them
    return [read] if is_known else [read, all_of_them]


def _together(told: Sequence[Answers]) -> Answers:
    """Return what is so in any of some possibilities."""
    return Answers(
        as_root=_united(each.as_root for each in told),
        to_anybody=_united(each.to_anybody for each in told),
        administrators=_united(each.administrators for each in told),
        unclear={fact: _united(each.unclear[fact] for each in told) for fact in _FACTS},
        not_read=_united(each.not_read for each in told),
    )


def _united(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for each in lists for text in each))


def _answers(rules: Rules, accounts: Accounts, installed: Sequence[str]) -> Answers:
    unclear: dict[str, dict[str, None]] = {f: dict.fromkeys(rules.unclear) for f in _FACTS}
    anybody = Subject("\0", (), "everybody", is_anybody=True)
    persons = _persons(accounts)

    def root(subject: Subject) -> Sequence[str]:
        return list(rules.unasked(subject, AS_ROOT, rules.sessions, unclear["as-root"]))

    def administrator(subject: Subject) -> Sequence[str]:
        return list(rules.identities(subject, unclear["administrators"]))

    everybody = [f"everybody: {what}" for what in root(anybody)]
    of_persons = [(p, what) for p, found in _once(persons, root) for what in found]
    administrators = _administrators(_once(persons, administrator), accounts)
    strange = unknown_subjects((anybody, *persons), rules, accounts)
    of_persons += [(s, what) for s in strange for what in root(s)]
    # Who sits at the machine is named by that.
    elsewhere = [session for session in rules.sessions if not session[0]]

    def any_account(actions: Sequence[str]) -> list[str]:
        said = rules.unasked(anybody, actions, elsewhere, unclear["to-anybody"], named=True)
        return [f"everybody: {what}" for what in said]

    told = any_account(rules.actions)
    looks_into, names = bool(rules.ids.peeked), rules.ids.compared.get("id", set())
    # Names that rules put together, and all that the machine has if they look into names.
    more = {*names, *(installed if looks_into else ())} - set(rules.actions)
    told = told or any_account(sorted(more))
    if rules.is_cut or (looks_into and not 0 < len(installed) < _MOST_ACTIONS):
        unclear["to-anybody"]["not all actions of the machine could be asked for"] = None
    return Answers(
        as_root=tuple(everybody or [f"{person.label}: {what}" for person, what in of_persons]),
        to_anybody=tuple(told),
        administrators=tuple(administrators),
        unclear={fact: tuple(texts) for fact, texts in unclear.items()},
        not_read=tuple(rules.not_read),
    )


def _once(
    persons: Sequence[Subject], ask: Callable[[Subject], Sequence[str]]
) -> Iterator[tuple[Subject, Sequence[str]]]:
    """Ask each person; those whom rules cannot tell apart, in the same groups and named by none,
    once for all.
    """
    known: dict[tuple[str, ...], Sequence[str]] = {}
    names: set[str] = set()
    for person in persons:
        if person.groups in known and person.user not in names:
            yield person, known[person.groups]
            continue
        found = ask(person)
        names |= person.trace.compared.get("user", set())
        if not person.trace.peeked and person.user not in names:
            known[person.groups] = found
        yield person, found


def _administrators(
    asked: Iterable[tuple[Subject, Sequence[str]]], accounts: Accounts
) -> Iterator[str]:
    strange: dict[str, None] = {}
    for person, identities in asked:
        own = {f"unix-user:{n}" for n in (person.user, accounts.uids[person.user])}
        own |= {f"unix-group:{n}" for n in person.groups}
        own |= {f"unix-group:{accounts.groups[n][0]}" for n in person.groups}
        if "wheel" not in person.groups and (by := [i for i in identities if i in own]):
            yield f"{person.user}: {', '.join(by)}"
        strange.update(dict.fromkeys(i for i in identities if _is_strange(i, accounts)))
    yield from (f"{identity}, which the machine does not list" for identity in strange)


def _is_strange(identity: str, accounts: Accounts) -> bool:
    """Say whether nobody here is known to be whom an identity of polkit names."""
    kind, _, name = identity.partition(":")
    users = {*accounts.uids, *map(str, accounts.uids.values())}
    groups = {*accounts.groups, *(str(number) for number, _ in accounts.groups.values())}
    known = {"unix-user": users, "unix-group": groups}.get(kind, set())
    return kind.startswith("unix-") and name not in known


def _persons(accounts: Accounts) -> list[Subject]:
    """Return the accounts that can log in, those of systemd-homed and of domains too."""
    return [
        Subject(name, tuple(sorted(accounts.groups_of(name))), name)
        for name, uid in sorted(accounts.uids.items())
        if uid >= 1000 and uid != _NOBODY
        if accounts.shells.get(name, "").rpartition("/")[2] not in _CLOSED
    ]


def _files(output: ProbeOutput) -> list[_File] | None:
    """Return the files of rules in polkit's order: by name, what the host itself has first."""
    found = []
    for title, text in output.records:
        if title == "rules":
            path, _, rest = text.partition("\0")
            size, _, body = rest.partition("\0")
            folder, _, name = path.rpartition("/")
            if folder not in _FOLDERS or (whole(size) or 0) > _MAX_BYTES:
                return None
            found.append((name, _FOLDERS.index(folder), body))
    return sorted(found)
