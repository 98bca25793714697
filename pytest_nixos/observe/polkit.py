"""polkit: what each account may really do unasked, by what the machine's rules answer.

polkit(8): rules stand in files that are read in the order of their names; the first that answers
decides, and where none does, the action's own default. An account is asked about as it works in the
background, over a network and at the machine, since rules tell these apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pytest_nixos.observe.base import Probe, ProbeOutput
from pytest_nixos.observe.polkit_script import Script, run_script
from pytest_nixos.observe.polkit_values import Given, Run, Unclear, truthy
from pytest_nixos.observe.text import whole
from pytest_nixos.observe.writers import READ_ACCOUNTS, Accounts, parse_accounts

__all__ = ["Answers", "polkit_answers"]

Value: TypeAlias = Any
_Session: TypeAlias = tuple[bool, bool, str]
_MAX_BYTES = 65536
_FOLDERS = ("/etc/polkit-1/rules.d", "/run/current-system/sw/share/polkit-1/rules.d")
_READ = (
    """
[ -d /etc/polkit-1 ] || exit 3
"""
    + READ_ACCOUNTS
    + rf"""
for file in {_FOLDERS[0]}/*.rules {_FOLDERS[1]}/*.rules; do
  [ -f "$file" ] || continue
  text=$(<"$file") || exit 5
  title rules; printf '%s\0%d\0%s' "$file" "${{#text}}" "${{text:0:{_MAX_BYTES}}}"
done
title actions
grep -ohE '<action id="[A-Za-z0-9._-]+"' /run/current-system/sw/share/polkit-1/actions/*.policy | head -n 2000
title complete
true
"""
)
_NO_POLKIT = 3
_RESULT = {
    "NO": "no",
    "YES": "yes",
    "AUTH_SELF": "auth_self",
    "AUTH_SELF_KEEP": "auth_self_keep",
    "AUTH_ADMIN": "auth_admin",
    "AUTH_ADMIN_KEEP": "auth_admin_keep",
    "NOT_HANDLED": None,
}
#: Actions that are as good as a root shell, and one that nobody has heard of.
_ANY = "org.example.any-action"
_AS_ROOT = (
    _ANY,
    "org.freedesktop.policykit.exec",
    "org.freedesktop.systemd1.manage-units",
    "org.freedesktop.systemd1.manage-unit-files",
    "org.freedesktop.systemd1.set-environment",
    "org.freedesktop.accounts.user-administration",
    "org.freedesktop.machine1.host-shell",
    "org.freedesktop.packagekit.package-install-untrusted",
)
_ID = re.compile(r"[A-Za-z][\w-]*(?:\.[\w-]+)+\.?")
#: What an account can give an action along; whatever no rule names, it can make up.
_VERBS = ("start", "restart", "\0")
_UNNAMED = "\0"
#: How an account works, local and active, and how that is told.
_AT_THE_MACHINE = (True, True, " at the machine")
_SESSIONS = ((False, False, ""), (False, True, " over a network"), _AT_THE_MACHINE)
_MOST_ACTIONS = 300
_MOST_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What the rules answer.

    :param as_root: accounts that may do unasked what is as good as a root shell, each with what.
    :param to_anybody: actions that an account may do unasked which no rule names, service accounts
        too; who sits at the machine is named by that.
    :param administrators: accounts outside of wheel whose own password is an administrator's.
    :param unclear: what could not be told, each with its file.
    """

    as_root: tuple[str, ...]
    to_anybody: tuple[str, ...]
    administrators: tuple[str, ...]
    unclear: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Subject:
    user: str
    groups: tuple[str, ...]

    def value(self, local: bool, active: bool) -> Value:
        return Given(
            user=self.user,
            groups=list(self.groups),
            local=local,
            active=active,
            isInGroup=lambda name: name in self.groups,
        )


#: An account that no rule names, in no group that one names.
_ANYBODY = _Subject(_UNNAMED, ())


class _Rules:
    """The rules of a machine, and what about them could not be told."""

    def __init__(self, files: Sequence[tuple[str, str]], actions: Sequence[str]) -> None:
        run = Run()
        self.scripts = [(name, text, run_script(text, _RESULT, run)) for name, text in files]
        everything = "".join(text for _, text in files)
        self.unclear = {
            f"{name}: {script.unclear}": None
            for name, text, script in self.scripts
            if script.unclear and _may_say_yes(text)
        }
        self.verbs = _VERBS if "lookup" in everything else _VERBS[-1:]
        asks_how = re.search(r"\b(local|active)\b", everything) is not None
        self.sessions = _SESSIONS if asks_how else _SESSIONS[:1]
        self.elsewhere = [session for session in self.sessions if session != _AT_THE_MACHINE]
        self.actions = self._named(actions)

    def _named(self, installed: Sequence[str]) -> Sequence[str]:
        """Return the actions that rules may mean: those they name, and the machine's own that
        begin as they say.
        """
        texts = {t for _, _, script in self.scripts for t in script.texts if _ID.fullmatch(t)}
        by_pattern = any(script.has_patterns for _, _, script in self.scripts)
        meant = [a for a in installed if by_pattern or any(t in a for t in texts)]
        made_up = [t + "any" if t.endswith(".") else t for t in sorted(texts)]
        return list(dict.fromkeys((*_AS_ROOT, *made_up, *meant)))[:_MOST_ACTIONS]

    def unasked(
        self, subject: _Subject, actions: Sequence[str], sessions: Sequence[_Session]
    ) -> Iterator[str]:
        """Yield what a subject may do unasked in the first of `sessions` in which it may do
        anything, in words.
        """
        for local, active, how in sessions:
            value = subject.value(local, active)
            done = [a for a in actions if any(self._says_yes(a, v, value) for v in self.verbs)]
            if done:
                shown = ["any action"] if _ANY in done else done
                rest = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
                yield f"{', '.join(shown[:_MOST_SHOWN])}{rest}{how}"
                return

    def _says_yes(self, action: str, verb: str, subject: Value) -> bool:
        asked = Given(id=action, lookup=lambda key: verb if key == "verb" else _UNNAMED)
        said = self._first(lambda script: script.rules, asked, subject)
        return isinstance(said, str) and said == "yes"

    def _first(self, kind: Callable[[Script], Sequence[Any]], action: Value, who: Value) -> Value:
        """Return what the first rule says that says something true, ``None`` where none does."""
        for name, text, script in self.scripts:
            for rule in kind(script):
                try:
                    said = rule.start(action, who)
                except Unclear as err:
                    if _may_say_yes(text):
                        self.unclear[f"{name}: {err} is not known"] = None
                    continue
                # What JavaScript takes for false is no answer: polkit asks the next rule.
                if truthy(said):
                    return said
        return None

    def administrators(self, subject: _Subject) -> Sequence[str]:
        """Return the identities by which a subject is an administrator, by its own password."""
        given = self._first(
            lambda script: script.admin_rules,
            Given(id=_ANY, lookup=lambda _: _UNNAMED),
            subject.value(local=True, active=True),
        )
        own = {f"unix-user:{subject.user}", *(f"unix-group:{g}" for g in subject.groups)}
        return [i for i in given if i in own] if isinstance(given, list) else []


def _may_say_yes(text: str) -> bool:
    return re.search(r"\bYES\b|[\"'`]yes[\"'`]|Result\s*\[|addAdminRule", text) is not None


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
    rules = _Rules(files, actions)
    persons = _persons(accounts)
    everybody = list(rules.unasked(_ANYBODY, _AS_ROOT, rules.sessions))
    return Answers(
        as_root=tuple(f"everybody: {what}" for what in everybody)
        or tuple(
            f"{person.user}: {what}"
            for person in persons
            for what in rules.unasked(person, _AS_ROOT, rules.sessions)
        ),
        to_anybody=tuple(
            f"everybody: {what}" for what in rules.unasked(_ANYBODY, rules.actions, rules.elsewhere)
        ),
        administrators=tuple(
            f"{person.user}: {', '.join(by)}"
            for person in persons
            if "wheel" not in person.groups and (by := rules.administrators(person))
        ),
        unclear=tuple(rules.unclear),
    )


def _persons(accounts: Accounts) -> list[_Subject]:
    return [_Subject(n, tuple(sorted(accounts.groups_of(n)))) for n in accounts.persons]


def _files(output: ProbeOutput) -> list[tuple[str, str]] | None:
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
    return [(name, body) for name, _, body in sorted(found)]
