"""Holding a value against an expectation; pure, and never satisfied by a value that is not
there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pytest_nixos.local.text import one_line
from pytest_nixos.standards.control.model import Expectation, Operator, Quantifier

__all__ = ["NothingToCheckError", "describe", "mismatch"]

Json = Any
SHOWN = 5
#: Characters from which on a text of several lines is told by its length.
LONG = 160


class NothingToCheckError(Exception):
    """A quantified expectation met a value without members."""


def mismatch(expect: Expectation, value: Json) -> str | None:
    """Say why `value` does not satisfy `expect`, or return ``None`` if it does.

    ``None`` as a value means "not there": it satisfies ``absent`` and nothing else.

    :raises NothingToCheckError: if the expectation is about members and there are none.
    """
    if expect.quantifier is Quantifier.WHOLE:
        return _whole(expect, value)
    if value is None:
        return "is not there"
    members = _members(value)
    if not members:
        raise NothingToCheckError
    wrong = [(name, reason) for name, v in members if (reason := _whole(expect, v)) is not None]
    if expect.quantifier is Quantifier.ANY:
        return None if len(wrong) < len(members) else f"no member does: {_listed(wrong)}"
    return _listed(wrong) or None


def describe(expect: Expectation) -> str:
    """Say what is expected in words."""
    prefix = {Quantifier.EACH: "each: ", Quantifier.ANY: "at least one: "}.get(
        expect.quantifier, ""
    )
    if expect.op is Operator.FIELDS:
        parts = [f"{name} {describe(inner)}" for name, inner in expect.fields.items()]
        return prefix + "; ".join(parts)
    if expect.op in (Operator.ANY_OF, Operator.ALL_OF):
        word = " or " if expect.op is Operator.ANY_OF else " and "
        return prefix + word.join(describe(inner) for inner in expect.alternatives)
    words = _WORDS[expect.op]
    return prefix + (words if expect.value is None else f"{words} {_text(expect.value)}")


def _whole(expect: Expectation, value: Json) -> str | None:
    match expect.op:
        case Operator.ABSENT:
            return None if value is None else f"is {_text(value)}, expected nothing"
        case Operator.ANY_OF:
            reasons = [mismatch(inner, value) for inner in expect.alternatives]
            return None if None in reasons else str(reasons[0])
        case Operator.ALL_OF:
            found = (mismatch(inner, value) for inner in expect.alternatives)
            return next((reason for reason in found if reason is not None), None)
        case _ if value is None:
            return f"is not there, expected {describe(expect)}"
        case Operator.PRESENT:
            return None
        case Operator.FIELDS:
            return _fields(expect, value)
        case _:
            if _COMPARE[expect.op](value, expect.value):
                return None
            # Of a long text nobody reads where it lacks something; it stands in the evidence.
            shown = (
                f"is a text of {len(value)} characters" if _is_long(value) else f"is {_text(value)}"
            )
            return f"{shown}, expected {describe(_bare(expect))}"


def _is_long(value: Json) -> bool:
    return isinstance(value, str) and len(value) > LONG and "\n" in value.strip()


def _fields(expect: Expectation, value: Json) -> str | None:
    if not isinstance(value, Mapping):
        return f"is {_text(value)}, expected named values"
    found = {name: mismatch(inner, value.get(name)) for name, inner in expect.fields.items()}
    wrong = [(name, reason) for name, reason in found.items() if reason is not None]
    return _listed(wrong) or None


def _bare(expect: Expectation) -> Expectation:
    return Expectation(op=expect.op, value=expect.value)


def _members(value: Json) -> list[tuple[str, Json]]:
    if isinstance(value, Mapping):
        return [(str(name), inner) for name, inner in sorted(value.items())]
    if isinstance(value, list | tuple):
        return [(_text(inner), inner) for inner in value]
    return [("", value)]


def _listed(wrong: Iterable[tuple[str, str]]) -> str:
    parts = [f"{name} {reason}".strip() for name, reason in wrong]
    shown = "; ".join(parts[:SHOWN])
    return shown if len(parts) <= SHOWN else f"{shown}; and {len(parts) - SHOWN} more"


def _text(value: Json) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "nothing"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_text(v)}" for k, v in sorted(value.items())) or "nothing"
    # What a guest says is untrusted: one line, without control characters.
    text = "null" if value is None else one_line(str(value))
    return (text if len(text) <= 300 else f"{text[:297]}...") or '""'


def _number(value: Json) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d+(\.\d+)?\s*", value):
        return float(value)
    return None


def _canonical(value: Json) -> Json:
    """Make equal what means the same: ``1`` and ``"1"``, tabs and blanks, ``0700`` and ``700``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, str):
        words = value.split()
        return " ".join(_canonical_word(word) for word in words)
    number = _number(value)
    if number is None:
        return value
    return _canonical_word(str(int(number) if number.is_integer() else number))


def _canonical_word(word: str) -> str:
    return str(int(word)) if re.fullmatch(r"-?\d{1,18}", word) else word


def _items(value: Json) -> list[Json]:
    if isinstance(value, str):
        return [_canonical(part) for part in re.split(r"[\s,]+", value) if part]
    if isinstance(value, Mapping):
        return [_canonical(key) for key in value]
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return [_canonical(value)]


def _ordered(holds: Callable[[float, float], bool]) -> Callable[[Json, Json], bool]:
    def compare(value: Json, wanted: Json) -> bool:
        left, right = _number(value), _number(wanted)
        return left is not None and right is not None and holds(left, right)

    return compare


def _between(value: Json, wanted: Json) -> bool:
    number = _number(value)
    return number is not None and wanted[0] <= number <= wanted[1]


def _contains(value: Json, wanted: Json) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return wanted in value
    return _canonical(wanted) in _items(value)


def _matches(value: Json, pattern: Json) -> bool:
    texts = value if isinstance(value, list | tuple) else [value]
    return any(re.search(str(pattern), _plain_text(text), re.MULTILINE) for text in texts)


def _plain_text(value: Json) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _mode_at_most(value: Json, wanted: Json) -> bool:
    """Whether no permission bit is set that `wanted`, octal text, does not have."""
    try:
        return int(str(value), 8) & ~int(str(wanted), 8) == 0
    except ValueError:
        return False


def _is_empty(value: Json) -> bool:
    return not value if isinstance(value, list | tuple | Mapping) else str(value).strip() == ""


_COMPARE: Mapping[Operator, Callable[[Json, Json], bool]] = {
    Operator.EQ: lambda value, wanted: bool(_canonical(value) == _canonical(wanted)),
    Operator.NE: lambda value, wanted: bool(_canonical(value) != _canonical(wanted)),
    Operator.GE: _ordered(lambda left, right: left >= right),
    Operator.LE: _ordered(lambda left, right: left <= right),
    Operator.GT: _ordered(lambda left, right: left > right),
    Operator.LT: _ordered(lambda left, right: left < right),
    Operator.BETWEEN: _between,
    Operator.IN: lambda value, wanted: _canonical(value) in _items(wanted),
    Operator.NOT_IN: lambda value, wanted: _canonical(value) not in _items(wanted),
    Operator.CONTAINS: _contains,
    Operator.CONTAINS_ANY: lambda value, wanted: any(i in _items(value) for i in _items(wanted)),
    Operator.CONTAINS_ALL: lambda value, wanted: all(i in _items(value) for i in _items(wanted)),
    Operator.EXCLUDES: lambda value, wanted: not any(i in _items(value) for i in _items(wanted)),
    Operator.SUBSET_OF: lambda value, wanted: all(i in _items(wanted) for i in _items(value)),
    Operator.MATCHES: _matches,
    Operator.NOT_MATCHES: lambda value, pattern: not _matches(value, pattern),
    Operator.MODE_AT_MOST: _mode_at_most,
    Operator.LENGTH: lambda value, wanted: len(_items(value)) == wanted,
    Operator.EMPTY: lambda value, _: _is_empty(value),
    Operator.NOT_EMPTY: lambda value, _: not _is_empty(value),
}

_WORDS: Mapping[Operator, str] = {
    Operator.EQ: "equal to",
    Operator.NE: "other than",
    Operator.GE: "at least",
    Operator.LE: "at most",
    Operator.GT: "more than",
    Operator.LT: "less than",
    Operator.BETWEEN: "between (both included)",
    Operator.IN: "one of",
    Operator.NOT_IN: "none of",
    Operator.CONTAINS: "containing",
    Operator.CONTAINS_ANY: "containing at least one of",
    Operator.CONTAINS_ALL: "containing all of",
    Operator.EXCLUDES: "containing none of",
    Operator.SUBSET_OF: "nothing but",
    Operator.MATCHES: "matching",
    Operator.NOT_MATCHES: "not matching",
    Operator.MODE_AT_MOST: "a mode of at most",
    Operator.PRESENT: "anything",
    Operator.ABSENT: "nothing",
    Operator.LENGTH: "so many members:",
    Operator.AS_DECLARED: "what the host declares",
    Operator.EMPTY: "an empty list",
    Operator.NOT_EMPTY: "something",
}
