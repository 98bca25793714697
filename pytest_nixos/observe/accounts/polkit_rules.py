"""What polkit's rules answer to each account, asked in all ways that they tell apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec

from pytest_nixos.observe.accounts.polkit_chosen import Chosen, Trace, Way, more_ways, ways_of
from pytest_nixos.observe.accounts.polkit_script import Script, can_say_yes, run_script
from pytest_nixos.observe.accounts.polkit_steps import Function
from pytest_nixos.observe.accounts.polkit_values import Given, Run, Scope, Thrown, Unclear, truthy
from pytest_nixos.observe.filesystems.writers import Accounts

__all__ = [
    "ANY_ACTION",
    "AS_ROOT",
    "Rules",
    "Session",
    "Subject",
    "unknown_subjects",
]

Value: TypeAlias = Any
#: How an account works: local, active, and how that is told.
Session: TypeAlias = tuple[bool, bool, str]
_Kind: TypeAlias = Callable[[Script], Sequence[Value]]
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
ANY_ACTION = "org.example.any-action"
AS_ROOT = (
    ANY_ACTION,
    "org.freedesktop.policykit.exec",
    "org.freedesktop.systemd1.manage-units",
    "org.freedesktop.systemd1.manage-unit-files",
    "org.freedesktop.systemd1.set-environment",
    "org.freedesktop.accounts.user-administration",
    "org.freedesktop.machine1.host-shell",
    "org.freedesktop.packagekit.package-install-untrusted",
)
_ID = re.compile(r"[A-Za-z][\w-]*(?:\.[\w-]+)+\.?")
_AT_THE_MACHINE = (True, True, " at the machine")
_UNWATCHED = (True, False, " at the machine, in the background")
_SESSIONS = ((False, False, ""), (False, True, " over a network"), _AT_THE_MACHINE, _UNWATCHED)
_SHORTEST = 3
_MOST_ACTIONS = 1000
_MOST_WAYS = 1000
_MOST_FORCED = 64
_MOST_SHOWN = 6


class Subject(msgspec.Struct, frozen=True):
    """An account that asks, or one that stands for others.

    :param label: how findings call it.
    :param is_anybody: it stands for an account that no rule names, in no group that one names.
    :param trace: how rules used its name.
    """

    user: str
    groups: tuple[str, ...]
    label: str = ""
    is_anybody: bool = False
    trace: Trace = msgspec.field(default_factory=Trace)

    def value(self, local: bool, active: bool, groups_asked: set[str]) -> Value:
        """Return what rules get to see of it."""

        def is_in_group(name: Value = None) -> bool:
            groups_asked.add(str(name))
            return name in self.groups

        # Netgroups and units of the system that a rule names are not this one's.
        named = {"isInNetGroup": lambda _: False, "system_unit": "\0"} if self.is_anybody else {}
        return Given(
            user=Chosen(self.user, "user", self.trace),
            groups=list(self.groups),
            local=local,
            active=active,
            isInGroup=is_in_group,
            **named,
        )


class Rules:
    """The rules of a machine, as one engine reads them.

    :param files: name and text of each, in polkit's order.
    :param installed: the actions that the machine has.
    """

    def __init__(
        self, files: Sequence[tuple[str, str]], installed: Sequence[str], *, duktape: bool
    ) -> None:
        run, scope = Run(duktape=duktape), Scope({})
        self.run = run
        self.scripts = [run_script(name, text, scope, _RESULT, run) for name, text in files]
        self.unclear = [f"{s.name}: {s.unclear}" for s in self.scripts if s.unclear]
        self.not_read = [f"{s.name} (it has {s.not_read})" for s in self.scripts if s.not_read]
        self.groups_asked: set[str] = set()
        #: How rules used the names of actions.
        self.ids = Trace()
        everything = "".join(text for _, text in files)
        asks_how = re.search(r"\b(local|active)\b", everything) is not None
        self.sessions = _SESSIONS if asks_how else _SESSIONS[:1]
        self.texts = sorted({t for s in self.scripts for t in s.texts if t})
        self.actions, self.is_cut = self._named(installed)

    def _named(self, installed: Sequence[str]) -> tuple[Sequence[str], bool]:
        """Return the actions that rules may mean, and whether there are more of them: those they
        name, and the machine's own that hold one of their texts.
        """
        pieces = [t for t in self.texts if len(t) >= _SHORTEST]
        by_pattern = any(script.has_patterns for script in self.scripts)
        meant = [a for a in installed if by_pattern or any(t in a for t in pieces)]
        names = [t for t in self.texts if _ID.fullmatch(t)]
        made_up = [t + "any" if t.endswith(".") else t for t in names]
        found = list(dict.fromkeys((*AS_ROOT, *made_up, *meant)))
        return found[:_MOST_ACTIONS], len(found) > _MOST_ACTIONS

    def unasked(
        self,
        subject: Subject,
        actions: Sequence[str],
        sessions: Sequence[Session],
        unclear: dict[str, None],
        *,
        named: bool = False,
    ) -> Iterator[str]:
        """Yield what a subject may do unasked in the first of `sessions` in which it may do
        anything, in words.

        :param named: whether a yes for one unit or program that a rule names counts too.
        """
        self.ids = Trace()
        for local, active, how in sessions:
            value = subject.value(local, active, self.groups_asked)
            kind: _Kind = lambda script: script.rules  # noqa: E731
            done = [
                action
                for action in actions
                if "yes" in self._said(kind, action, value, unclear, named=named, until="yes")
            ]
            if done:
                shown = ["any action"] if ANY_ACTION in done else done
                rest = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
                yield f"{', '.join(shown[:_MOST_SHOWN])}{rest}{how}"
                return

    def identities(self, subject: Subject, unclear: dict[str, None]) -> Sequence[str]:
        """Return whose passwords are an administrator's where a subject asks to be root."""
        kind: _Kind = lambda script: script.admin_rules  # noqa: E731
        found: dict[str, None] = {}
        for local, active, _ in self.sessions:
            value = subject.value(local, active, self.groups_asked)
            for action in AS_ROOT:
                for said in self._said(kind, action, value, unclear):
                    listed = said if isinstance(said, list) else []
                    texts = [text for text in listed if isinstance(text, str)]
                    found.update(dict.fromkeys(i for text in texts for i in text.split(",")))
        return list(found)

    def _said(
        self,
        kind: _Kind,
        action: str,
        who: Value,
        unclear: dict[str, None],
        *,
        named: bool = False,
        until: Value = None,
    ) -> Sequence[Value]:
        """Return what rules answer to all ways in which an action can be asked for.

        :param until: an answer after which no other counts.
        """
        waiting: list[Way | None] = [*ways_of(action, named=named)]
        seen = {_key(way) for way in waiting}
        answers: list[Value] = []
        peeked: set[str] = set()
        is_cut = False
        while waiting:
            way = waiting.pop(0)
            said, trace = self._ask(kind, action, way, who, unclear)
            if until is not None and said == until:
                return [said]
            answers.append(said)
            other = (lambda a: a == until) if until is not None else (lambda a: a not in answers)
            ask = partial(self._ask, kind, action, way, who)
            if trace.peeked and _may_say(other, ask, trace):
                peeked |= trace.peeked
            for key, text in more_ways(trace, self.texts, named=named):
                self.run.in_all -= 1
                if len(seen) >= _MOST_WAYS or self.run.in_all < 0:
                    is_cut = True
                    break
                # What is free in `way` stays free.
                more = {**(way if way is not None else {"": ""}), key: text}
                if _key(more) not in seen:
                    seen.add(_key(more))
                    waiting.append(more)
        if peeked or is_cut:
            keys = ", ".join(sorted(peeked)) or "details"
            unclear[f"which {keys} of {action} rules mean is not known"] = None
        return answers

    def _ask(
        self,
        kind: _Kind,
        action: str,
        way: Way | None,
        who: Value,
        unclear: dict[str, None],
        *,
        forced: Sequence[bool] = (),
    ) -> tuple[Value, Trace]:
        self.run.trace = trace = Trace(forced=forced)
        asked = _asked(Chosen(action, "id", self.ids), way, trace)
        return self._first(kind, asked, who, unclear), trace

    def _first(self, kind: _Kind, action: Value, who: Value, unclear: dict[str, None]) -> Value:
        """Return what the first rule says that says something true, ``None`` where none does."""
        for script in self.scripts:
            for rule in kind(script):
                if not isinstance(rule, Function):
                    return "no"
                try:
                    said = rule.start(action, who)
                except Thrown:
                    return "no"
                except Unclear as err:
                    if kind(script) is script.admin_rules or can_say_yes(rule):
                        unclear[f"{script.name}: {err} is not known"] = None
                    continue
                # What JavaScript takes for false is no answer: polkit asks the next rule.
                if truthy(said):
                    return said
        return None


def _may_say(
    other: Callable[[Value], bool], ask: Callable[..., tuple[Value, Trace]], trace: Trace
) -> bool:
    """Say whether rules may give some other answer if a chosen text is another one: each condition
    that looked into it is taken to hold, and not to.
    """
    waiting: list[Sequence[bool]] = []
    unclear: dict[str, None] = {}
    begun = 0
    for _ in range(_MOST_FORCED):
        waiting += [(*trace.held[:n], not trace.held[n]) for n in range(begun, len(trace.held))]
        if trace.loose or trace.is_kept or unclear:
            return True
        if not waiting:
            return False
        forced = waiting.pop()
        said, trace = ask(unclear, forced=forced)
        if other(said):
            return True
        begun = len(forced)
    return True


def _key(way: Way | None) -> frozenset[tuple[str, str | None]] | None:
    return None if way is None else frozenset(way.items())


def _asked(action: Chosen, way: Way | None, trace: Trace) -> Value:
    """Return an action as rules get to see it.

    :param way: its details; ``None``, or one with the key ``""``, has any other key as well.
    """
    details: Mapping[str, str | None] = {"": ""} if way is None else way

    def lookup(key: Value = None) -> Value:
        text = details.get(str(key))
        if text is not None:
            return text
        is_free = str(key) in details or "" in details
        return Chosen(_free(str(key)), str(key), trace) if is_free else None

    return Given(id=action, lookup=lookup)


def _free(key: str) -> str:
    return {"unit": "any.service", "program": "/any/program"}.get(key, f"any-{key}")


def unknown_subjects(
    subjects: Sequence[Subject], rules: Rules, accounts: Accounts
) -> list[Subject]:
    """Return subjects for the users and groups that rules asked for and that nobody lists: those of
    a domain are known when they log in.
    """
    users = {name for s in subjects for name in s.trace.compared.get("user", ())}
    groups = rules.groups_asked - set(accounts.groups)
    strange = sorted(name for name in users - set(accounts.uids) if name.strip("\0"))
    note = "which the machine does not list"
    return [
        *(Subject(name, (), f"user {name}, {note}") for name in strange),
        *(Subject("\0", (name,), f"group {name}, {note}") for name in sorted(groups)),
    ]
