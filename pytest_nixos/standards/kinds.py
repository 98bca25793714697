"""Kinds of observation that need no code per control: what each is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "Kind", "Parameter"]

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a kind.

    :param type: ``text``, ``number``, ``flag``, ``texts`` (a list) or ``numbers``.
    :param choices: the only values allowed, if there are any.
    """

    type: str = "text"
    required: bool = False
    choices: tuple[str, ...] = ()

    def problem(self, value: Json) -> str | None:
        """Say what is wrong with `value`, if anything is."""
        if not _TYPES[self.type](value):
            return f"is {value!r}, expected {self.type}"
        if self.choices and value not in self.choices:
            return f"is {value!r}, expected one of {', '.join(self.choices)}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of observation.

    :param reads: what it reads, in words, for the documentation.
    :param host_side: whether it is judged from files of the flake or the closure, without a machine.
    """

    name: str
    reads: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    host_side: bool = False

    @property
    def signature(self) -> str:
        """Its parameters in words."""
        parts = [
            f"{name} ({parameter.type}{'' if parameter.required else ', optional'})"
            for name, parameter in self.parameters.items()
        ]
        return ", ".join(parts) or "no parameters"

    def problem(self, given: Mapping[str, Json]) -> str | None:
        """Say what is wrong with the parameters `given`, if anything is."""
        for name, value in given.items():
            if name not in self.parameters:
                return f"{name}: kind {self.name} has no such parameter"
            if (wrong := self.parameters[name].problem(value)) is not None:
                return f"{name}: {wrong}"
        missing = [n for n, p in self.parameters.items() if p.required and n not in given]
        return f"lacks {', '.join(missing)}" if missing else None


def _is_texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES = {
    "text": lambda value: isinstance(value, str) and bool(value),
    "number": _is_number,
    "flag": lambda value: isinstance(value, bool),
    "texts": _is_texts,
    "numbers": lambda value: isinstance(value, list) and all(map(_is_number, value)),
}

_NEEDED = Parameter(required=True)

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="sysctl",
            reads="a file below /proc/sys",
            parameters={"key": _NEEDED},
        ),
    )
}
