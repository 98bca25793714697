"""What a kind of observation is: what it is asked with, which probe reads it, and how one
control's value is found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.observe.base import Probe
from pytest_nixos.standards.control.seen import Sight
from pytest_nixos.subject import Subject

__all__ = ["NEEDED", "NEEDED_TEXTS", "TEXT", "TEXTS", "Kind", "Parameter", "Parameters"]

Json = Any
Parameters = Mapping[str, Json]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a kind.

    :param type: ``text``, ``number``, ``flag`` or ``texts`` (a list).
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


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of observation.

    :param name: as a catalogue entry says it, ``observed = { kind = NAME, ... }``.
    :param reads: what it reads, in words, for the documentation.
    :param probe: makes the one probe that reads everything that the given parameters of many
        controls ask for; ``None`` where it is read on the host machine, from the flake, the closure
        or the evaluated config.
    :param find: finds one control's value in what the probe parsed.
    :param parameters: what a catalogue entry says beside the kind.
    :param one_of: parameters of which exactly one has to be given.
    :param options: option paths that it reads, from its parameters.
    :param unready: whether a server has not begun to give what is asked of it, from what the probe
        parsed; it is asked again then, for a while.
    :param blames: what is broken where a control fails, from its parameters and what was observed.
    """

    name: str
    reads: str
    probe: Callable[[Sequence[Parameters], HostConfig], Probe[Any]] | None
    find: Callable[[Any, Parameters, HostConfig], Sight]
    parameters: Mapping[str, Parameter] = msgspec.field(default_factory=dict)
    one_of: tuple[str, ...] = ()
    options: Callable[[Parameters], tuple[str, ...]] = lambda _: ()
    unready: Callable[[Any, Parameters, HostConfig], bool] = lambda _, __, ___: False
    blames: Callable[[Parameters, Json], tuple[Subject, ...]] = lambda _, __: ()

    @property
    def host_side(self) -> bool:
        """Whether it is read without a machine, so that a verdict counts as judged on the
        config.
        """
        return self.probe is None

    @property
    def signature(self) -> str:
        """Its parameters in words."""
        parts = [
            f"{name} ({parameter.type}{'' if parameter.required else ', optional'})"
            for name, parameter in self.parameters.items()
        ]
        return ", ".join(parts) or "no parameters"

    def about(self, given: Parameters) -> str:
        """Say in words what it looks at with the parameters `given`."""
        if "services" in given:
            return (
                "services that the host is there for (those that NixOS brings, such as sshd, nscd"
                " and the network's, are not meant)"
            )
        names = [given[key] for key in ("path", "paths", "unit", "units", "key") if key in given]
        flat = [n for name in names for n in ([name] if isinstance(name, str) else name)]
        return f"{self.reads} ({', '.join(flat)})" if flat else self.reads

    def problem(self, given: Parameters) -> str | None:
        """Say what is wrong with the parameters `given`, if anything is."""
        for name, value in given.items():
            if name not in self.parameters:
                return f"{name}: kind {self.name} has no such parameter"
            if (wrong := self.parameters[name].problem(value)) is not None:
                return f"{name}: {wrong}"
        missing = [n for n, p in self.parameters.items() if p.required and n not in given]
        if missing:
            return f"lacks {', '.join(missing)}"
        if self.one_of and sum(name in given for name in self.one_of) != 1:
            return f"needs exactly one of {', '.join(self.one_of)}"
        return None


def _is_texts(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


_TYPES: Mapping[str, Callable[[Json], bool]] = {
    "text": lambda value: isinstance(value, str) and bool(value),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "flag": lambda value: isinstance(value, bool),
    "texts": _is_texts,
}

TEXT = Parameter()
TEXTS = Parameter(type="texts")
NEEDED = Parameter(required=True)
NEEDED_TEXTS = Parameter(type="texts", required=True)
