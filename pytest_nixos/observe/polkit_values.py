"""Values of polkit's rules: what JavaScript's operators and methods make of them, where they are
kept, and how many steps are left.

A text, a number, a flag, ``None`` for null and undefined, a list, an object as a dictionary, a
compiled pattern or something that can be called. What is not here is :class:`Unclear`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "Break",
    "Continue",
    "Given",
    "Return",
    "Run",
    "Scope",
    "Unclear",
    "binary",
    "call_method",
    "member",
    "pattern",
    "truthy",
]

Value: TypeAlias = Any
Method: TypeAlias = Callable[..., Value]
#: A pattern of a guest's must not keep this machine busy.
_LONGEST = 300
_MOST_STEPS = 5_000
_MOST_LONG = 10_000
#: What every object has, whatever it was made of.
_INHERITED = frozenset({"constructor", "hasOwnProperty", "toString", "valueOf", "__proto__"})
_NESTED = re.compile(r"\)\s*[*+{]|\\[1-9]|\(\?<?[=!]")


class Unclear(Exception):
    """What a rule does is not known here; its text says what would have to be."""


class Break(Exception):
    """Leaves a loop or a switch."""


class Continue(Exception):
    """Begins the next round of a loop."""


class Return(Exception):
    """Leaves a function."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


@dataclass(slots=True)
class Scope:
    """Variables of a function, and of those around it."""

    values: dict[str, Value]
    outer: Scope | None = None

    def holder(self, name: str) -> dict[str, Value]:
        """Return the variables among which `name` is."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values
            scope = scope.outer
        raise Unclear(f"what {name} is")


@dataclass(slots=True)
class Run:
    """The steps that are left, of one question and of all that a machine's rules are asked."""

    in_all: int = 2_000_000
    steps: int = _MOST_STEPS
    depth: int = 0

    def begin(self) -> None:
        """Begin a question."""
        self.steps, self.depth = _MOST_STEPS, 0

    def step(self, count: int = 1) -> None:
        """Count a step, or as many as something takes."""
        self.steps -= count
        self.in_all -= count
        if self.steps < 0 or self.in_all < 0:
            raise Unclear("what it comes to after many steps")


class Given(dict[str, Value]):
    """An object that polkit gives a rule: it may hold more than is known here."""


def truthy(value: Value) -> bool:
    """Say what a condition makes of a value: an empty list or object is true."""
    return True if isinstance(value, list | dict) else bool(value)


def pattern(source: str, flags: str) -> re.Pattern[str]:
    """Return a pattern that means what JavaScript's does.

    :raises Unclear: where it is long, or such that it could take a long time.
    """
    if len(source) > _LONGEST or _NESTED.search(source) or set(flags) - set("gi"):
        raise Unclear("what a pattern matches")
    try:
        return re.compile(source.replace("$", r"\Z"), re.IGNORECASE if "i" in flags else 0)
    except re.error:
        raise Unclear("what a pattern matches") from None


def binary(operator: str, left: Value, right: Value) -> Value:
    """Apply an operator.

    :raises Unclear: where it would turn one kind of value into another.
    """
    if operator in ("==", "==="):
        return _equal(left, right)
    if operator in ("!=", "!=="):
        return not _equal(left, right)
    if operator == "in" and isinstance(right, dict):
        return left in right
    numbers = all(isinstance(v, int) and not isinstance(v, bool) for v in (left, right))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        raise Unclear(f"what {operator} makes of different kinds of values")
    if operator == "+":
        return _bounded(left + right)
    if operator == "-" and numbers:
        return left - right
    compare: Mapping[str, Callable[[], bool]] = {
        "<": lambda: left < right,
        ">": lambda: left > right,
        "<=": lambda: left <= right,
        ">=": lambda: left >= right,
    }
    if operator not in compare:
        raise Unclear(f"what {operator} makes of a value")
    return compare[operator]()


def _equal(left: Value, right: Value) -> bool:
    if isinstance(left, list | dict) or isinstance(right, list | dict):
        return left is right
    kinds = {type(left), type(right)}
    if len(kinds) > 1 and type(None) not in kinds:
        raise Unclear("whether values of different kinds are equal")
    return len(kinds) == 1 and bool(left == right)


def member(value: Value, name: Value) -> Value:
    """Return ``value.name`` or ``value[name]``.

    :raises Unclear: where the value has no such member that is known here.
    """
    if name == "length" and isinstance(value, str | list):
        return len(value)
    if isinstance(value, dict) and isinstance(name, str):
        if name in value or (not isinstance(value, Given) and name not in _INHERITED):
            return value.get(name)
        raise Unclear(f"what the member {name[:40]} is")
    if isinstance(value, list | str) and isinstance(name, int | str) and str(name).isdecimal():
        return value[int(name)] if int(name) < len(value) else None
    raise Unclear(f"what the member {str(name)[:40]} is")


def call_method(owner: Value, name: str, given: Sequence[Value]) -> Value:
    """Call ``owner.name(...)``.

    :raises Unclear: where it is no method that is known here.
    """
    if isinstance(owner, dict):
        found = owner.get(name)
        if callable(found):
            return found(*given)
        raise Unclear(f"what {name} answers")
    methods: Mapping[str, Method] = {}
    if isinstance(owner, str):
        methods = _OF_TEXT
    elif isinstance(owner, list):
        methods = _OF_LIST
    elif isinstance(owner, re.Pattern):
        methods = _OF_PATTERN
    if name not in methods:
        raise Unclear(f"what {name} answers")
    try:
        return _bounded(methods[name](owner, *given))
    except (TypeError, ValueError, IndexError, AttributeError):
        raise Unclear(f"what {name} answers") from None


def _bounded(value: Value) -> Value:
    if isinstance(value, str | list) and len(value) > _MOST_LONG:
        raise Unclear("what a very long value is")
    return value


def _match(text: str, searched: Value) -> Value:
    if not isinstance(searched, re.Pattern):
        searched = pattern(_as_text(searched), "")
    found = searched.search(text)
    return None if found is None else [found[0], *found.groups()]


def _as_text(value: Value) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _slice(text: Value, begin: int = 0, end: int | None = None) -> Value:
    return text[begin:end]


def _substring(text: str, begin: int, end: int | None = None) -> str:
    low, high = sorted((max(begin, 0), len(text) if end is None else max(end, 0)))
    return text[low:high]


def _split(text: str, by: str, most: int | None = None) -> list[str]:
    return (text.split(_as_text(by)) if by else list(text))[:most]


def _index(values: list[Value], value: Value) -> int:
    return next((n for n, each in enumerate(values) if _equal(each, value)), -1)


_OF_TEXT: Mapping[str, Method] = {
    "charAt": lambda text, n: text[n : n + 1],
    "endsWith": lambda text, end: text.endswith(_as_text(end)),
    "includes": lambda text, part: _as_text(part) in text,
    "indexOf": lambda text, part: text.find(_as_text(part)),
    "lastIndexOf": lambda text, part: text.rfind(_as_text(part)),
    "match": _match,
    "search": lambda text, p: -1 if (m := p.search(text)) is None else m.start(),
    "slice": _slice,
    "split": _split,
    "startsWith": lambda text, begin: text.startswith(_as_text(begin)),
    "substr": lambda text, n, size=None: text[n:][:size],
    "substring": _substring,
    "toLowerCase": lambda text: text.lower(),
    "toString": lambda text: text,
    "toUpperCase": lambda text: text.upper(),
    "trim": lambda text: text.strip(),
}
_OF_LIST: Mapping[str, Method] = {
    "concat": lambda values, more: [*values, *(more if isinstance(more, list) else [more])],
    "every": lambda values, f: all(truthy(f(v)) for v in values),
    "filter": lambda values, f: [v for v in values if truthy(f(v))],
    "forEach": lambda values, f: [f(v) for v in values] and None,
    "includes": lambda values, value: _index(values, value) >= 0,
    "indexOf": _index,
    "join": lambda values, by=",": by.join(values),
    "map": lambda values, f: [f(v) for v in values],
    "push": lambda values, value: values.append(value) or len(values),
    "some": lambda values, f: any(truthy(f(v)) for v in values),
}
_OF_PATTERN: Mapping[str, Method] = {
    "exec": lambda p, text: _match(_as_text(text), p),
    "test": lambda p, text: p.search(_as_text(text)) is not None,
}
