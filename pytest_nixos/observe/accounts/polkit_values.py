"""Values of polkit's rules: what JavaScript's operators and methods make of them, where they are
kept, and how many steps are left.

A text, a number, a flag, ``None`` for null and undefined, a list, an object as a dictionary, a
compiled pattern or something that can be called. What is not here is :class:`Unclear`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from pytest_nixos.observe.accounts.polkit_chosen import Chosen, Trace

__all__ = [
    "Break",
    "Continue",
    "Given",
    "Return",
    "Run",
    "Scope",
    "Thrown",
    "Unclear",
    "binary",
    "call_method",
    "member",
    "pattern",
    "truthy",
    "type_of",
]

Value: TypeAlias = Any
Method: TypeAlias = Callable[..., Value]
#: A pattern of a guest's must not keep this machine busy.
_LONGEST = 300
_MOST_STEPS = 5_000
_MOST_LONG = 10_000
_MOST_NAMES = 100
#: What every object has, whatever it was made of.
_INHERITED = frozenset({"constructor", "hasOwnProperty", "toString", "valueOf", "__proto__"})
#: What undefined is as a text.
_NOTHING = "undefined"
#: A pattern of whole names: texts, and choices between texts.
_LITERAL = r"(?:[\w@:-]|\\[.@-])*"
_CLOSED = re.compile(
    rf"\^{_LITERAL}(?:\((?:\?:)?{_LITERAL}(?:\|{_LITERAL})*\){_LITERAL})*\\Z", re.ASCII
)
_NESTED = re.compile(r"\)\s*[*+{]|\\[1-9]|\(\?<?[=!]")


class Unclear(Exception):
    """What a rule does is not known here; its text says what would have to be."""


class Thrown(Exception):
    """A rule throws: polkit answers no, whatever other rules say."""


class Break(Exception):
    """Leaves a loop or a switch."""


class Continue(Exception):
    """Begins the next round of a loop."""


class Return(Exception):
    """Leaves a function."""

    def __init__(self, value: Value) -> None:
        super().__init__()
        self.value = value


class Scope(msgspec.Struct):
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

    @property
    def outermost(self) -> Scope:
        """Where all files keep what is declared in none of their functions."""
        scope = self
        while scope.outer is not None:
            scope = scope.outer
        return scope


class Run(msgspec.Struct):
    """The steps that are left, of one question and of all that a machine's rules are asked.

    :param duktape: whether polkit runs its rules in Duktape, which lacks what came after 2009.
    """

    duktape: bool = False
    #: How the rules that run use what was chosen.
    trace: Trace = msgspec.field(default_factory=Trace)
    #: Variables that a function declares, by the number of its body's node, which is its own as
    #: long as the node is kept.
    hoisted: dict[int, tuple[object, list[str]]] = msgspec.field(default_factory=dict)
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
    long = len(source) > _LONGEST or _NESTED.search(source) or "\\$" in source
    if long or set(flags) - set("gi"):
        raise Unclear("what a pattern matches")
    flag = re.ASCII | (re.IGNORECASE if "i" in flags else re.ASCII)
    try:
        return re.compile(source.replace("$", r"\Z"), flag)
    except re.error:
        raise Unclear("what a pattern matches") from None


def type_of(value: Value) -> str:
    """Return what ``typeof`` says of a value.

    :raises Unclear: where it is null or undefined.
    """
    if value is None:
        raise Unclear("what typeof makes of nothing")
    if callable(value):
        return "function"
    kinds = {bool: "boolean", int: "number", str: "string"}
    return next((word for kind, word in kinds.items() if isinstance(value, kind)), "object")


def binary(operator: str, left: Value, right: Value) -> Value:
    """Apply an operator.

    :raises Unclear: where it would turn one kind of value into another.
    """
    if operator in ("==", "==="):
        return _equal(left, right)
    if operator in ("!=", "!=="):
        return not _equal(left, right)
    if operator == "in" and isinstance(right, dict):
        _look_up(right, left)
        return left in right
    if operator == "+" and isinstance(left, str) != isinstance(right, str):
        left, right = (_NOTHING if v is None else v for v in (left, right))
    numbers = all(isinstance(v, int) and not isinstance(v, bool) for v in (left, right))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        raise Unclear(f"what {operator} makes of different kinds of values")
    if operator == "+":
        return _joined(left, right)
    _look_into(left, right)
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


def _joined(left: Value, right: Value) -> Value:
    """Return ``left + right``: what is made of a chosen text tells about it when it is used."""
    whole = _bounded(left + right)
    chosen = next((v for v in (left, right) if isinstance(v, Chosen)), None)
    return whole if chosen is None else Chosen(whole, chosen.name, chosen.trace, made=True)


def _look_into(*values: Value) -> None:
    for value in values:
        if isinstance(value, Chosen):
            value.looked_into()


def _look_up(holder: Value, name: Value) -> None:
    """Note that a chosen text is looked for among the members of something."""
    if isinstance(name, Chosen):
        name.held_against(*holder) if not isinstance(holder, Given) else name.looked_into()


def _equal(left: Value, right: Value) -> bool:
    if isinstance(left, list | dict) or isinstance(right, list | dict):
        return left is right
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Chosen):
            one.held_against(other)
    left, right = (str(v) if isinstance(v, str) else v for v in (left, right))
    kinds = {type(left), type(right)}
    if len(kinds) > 1 and type(None) not in kinds:
        raise Unclear("whether values of different kinds are equal")
    return len(kinds) == 1 and bool(left == right)


def member(value: Value, name: Value) -> Value:
    """Return ``value.name`` or ``value[name]``.

    :raises Thrown: where there is no value.
    :raises Unclear: where the value has no such member that is known here.
    """
    if value is None:
        raise Thrown
    _look_into(value)
    if isinstance(value, dict):
        _look_up(value, name)
    if name == "length" and isinstance(value, str | list):
        return len(value)
    if isinstance(value, dict) and (isinstance(name, str) or name is None):
        name = _NOTHING if name is None else name
        if name in value or (not isinstance(value, Given) and name not in _INHERITED):
            return value.get(name)
        raise Unclear(f"what the member {name[:40]} is")
    if isinstance(value, list | str) and isinstance(name, int | str) and str(name).isdecimal():
        return value[int(name)] if int(name) < len(value) else None
    raise Unclear(f"what the member {str(name)[:40]} is")


def call_method(owner: Value, name: str, given: Sequence[Value]) -> Value:
    """Call ``owner.name(...)``.

    :raises Thrown: where there is no owner.
    :raises Unclear: where it is no method that is known here.
    """
    if owner is None:
        raise Thrown
    _note_use(owner, name, given)
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


def _note_use(owner: Value, name: str, given: Sequence[Value]) -> None:
    """Note the chosen texts that a method looks into."""
    if isinstance(owner, list) or (isinstance(owner, dict) and name == "log"):
        # A list holds them against what is in it.
        return
    names = _names(owner.pattern) if isinstance(owner, re.Pattern) else None
    for value in given if names is not None else ():
        if isinstance(value, Chosen):
            value.held_against(*names or ())
    if names is not None:
        return
    _look_into(owner, *given)


def _names(pattern: str) -> list[str] | None:
    """Return the texts that a pattern of whole names matches; ``None`` of any other."""
    if not _CLOSED.fullmatch(pattern):
        return None
    parts = re.split(r"\((?:\?:)?([^)]*)\)", pattern.removeprefix("^").removesuffix(r"\Z"))
    choices = itertools.product(*(part.split("|") for part in parts))
    names = ["".join(each).replace("\\", "") for each in itertools.islice(choices, _MOST_NAMES)]
    return names if len(names) < _MOST_NAMES else None


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


def _each(values: list[Value], function: Method) -> Iterator[Value]:
    """Call a function with each value, its place and all of them."""
    return (function(value, n, values) for n, value in enumerate([*values]))


def _join(values: list[Value], by: str = ",") -> str:
    _look_into(*values)
    return by.join(values)


def _replace(text: str, old: Value, new: Value) -> str:
    if isinstance(old, re.Pattern) or "$" in _as_text(new):
        raise TypeError(old)
    return text.replace(_as_text(old), new, 1)


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
    "replace": _replace,
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
    "every": lambda values, f: all(truthy(v) for v in _each(values, f)),
    "filter": lambda values, f: [
        v for v, kept in zip(values, _each(values, f), strict=False) if truthy(kept)
    ],
    "forEach": lambda values, f: [*_each(values, f)] and None,
    "includes": lambda values, value: _index(values, value) >= 0,
    "indexOf": _index,
    "join": _join,
    "map": lambda values, f: [*_each(values, f)],
    "push": lambda values, value: values.append(value) or len(values),
    "some": lambda values, f: any(truthy(v) for v in _each(values, f)),
}
_OF_PATTERN: Mapping[str, Method] = {
    "exec": lambda p, text: _match(_as_text(_NOTHING if text is None else text), p),
    "test": lambda p, text: p.search(_as_text(_NOTHING if text is None else text)) is not None,
}
