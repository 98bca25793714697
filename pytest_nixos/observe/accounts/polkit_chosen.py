"""What an account gives a question to polkit along: much of it is its own choice, such as the name of
a unit that it starts. A rule may hold such a text against others, or look into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import msgspec

__all__ = ["ROOT_WAYS", "Chosen", "Trace", "Way", "more_ways", "ways_of"]

#: Details of a question by key; a key that is lacking is undefined, ``None`` is free to choose.
Way = Mapping[str, str | None]


class Trace(msgspec.Struct):
    """How rules used the texts that somebody chose.

    :param compared: name of such a text to what it was held against.
    :param peeked: names of those that were looked into in another way.
    :param loose: how many such looks no condition has made a yes or no of.
    :param forced: what the first such conditions are taken to hold, whatever they came to.
    :param held: what all of them held.
    :param is_kept: whether what such a look told was assigned to something.
    """

    compared: dict[str, set[str]] = msgspec.field(default_factory=dict)
    peeked: set[str] = msgspec.field(default_factory=set)
    loose: int = 0
    forced: Sequence[bool] = ()
    held: list[bool] = msgspec.field(default_factory=list)
    is_kept: bool = False

    def decide(self, holds: bool, loose_before: int) -> bool:
        """Return what a condition holds: where it looked into a chosen text, what it is taken to
        hold.

        :param loose_before: the looks that were loose when it began.
        """
        if self.loose == loose_before:
            return holds
        self.loose = loose_before
        if len(self.held) < len(self.forced):
            holds = self.forced[len(self.held)]
        self.held.append(holds)
        return holds


class Chosen(str):
    """A text that was chosen by who asks; it notes how it is used.

    :param made: whether a rule made it of a chosen one, so that what it equals tells a part.
    """

    __slots__ = ("made", "name", "trace")

    name: str
    trace: Trace
    made: bool

    def __new__(cls, text: str, name: str, trace: Trace, *, made: bool = False) -> Self:
        self = super().__new__(cls, text)
        self.name, self.trace, self.made = name, trace, made
        return self

    def held_against(self, *others: object) -> None:
        """Note that a rule asked whether it is one of `others`."""
        if self.made:
            self.looked_into()
        texts = {str(other) for other in others if isinstance(other, str)}
        self.trace.compared.setdefault(self.name, set()).update(texts)

    def looked_into(self) -> None:
        """Note that a rule asked something else."""
        self.trace.peeked.add(self.name)
        self.trace.loose += 1


_UNITS = "org.freedesktop.systemd1.manage-units"
_ROOT = {"user": "root", "user.gecos": "System administrator", "program": None}
#: How who wants to be root asks. StartTransientUnit names a unit of the caller's own, to "start".
ROOT_WAYS: Mapping[str, Sequence[Way]] = {
    _UNITS: (
        *({"unit": None, "verb": verb} for verb in ("start", "restart", "any-verb")),
        {},
    ),
    "org.freedesktop.policykit.exec": (
        {**_ROOT, "user.display": "System administrator (root)", "command_line": None},
    ),
    "org.freedesktop.machine1.host-shell": ({"machine": ".host", "user": "root", "program": None},),
}
_PROGRAMS = ("program", "command_line")
_SHELL = re.compile(
    r"(?:.*/)?(?:(?:ba|da|z|k|c|tc|fi|a)?sh|env|busybox|python[\d.]*|perl|ruby|lua|node|sudo|su|systemd-run)(?: .*)?"
)


def ways_of(action: str, *, named: bool) -> Sequence[Way | None]:
    """Return how an action may be asked for; ``None`` stands for details that are all free.

    :param named: whether what a rule names counts too: a yes for one unit makes nobody root.
    """
    root = ROOT_WAYS.get(action, ({},))
    return (*root, *([] if {} in root else [{}]), None) if named else root


def more_ways(trace: Trace, texts: Sequence[str], *, named: bool) -> Iterator[tuple[str, str]]:
    """Yield details, key and text, that rules may answer differently than those they were asked.

    :param texts: what the rules hold: of them names are built that a rule looks into.
    """
    for key, compared in trace.compared.items():
        if named:
            yield from ((key, text) for text in sorted(compared))
        elif key in _PROGRAMS:
            yield from ((key, text) for text in sorted(compared) if _SHELL.fullmatch(text))
    for key in sorted(trace.peeked):
        for text in texts:
            yield from ((key, built) for built in _built(key, text, named=named))


def _built(key: str, text: str, *, named: bool) -> Iterator[str]:
    if key == "unit":
        # Of a template nobody makes an instance of the same kind; the other kinds are free.
        ends = ("any.timer",) if text.endswith("@") else ("any.service", "any.timer")
        made = (f"{begin}{text}{end}" for begin in ("", "any-") for end in ("", *ends))
        # The name that a rule holds is one that it means.
        yield from (name for name in made if name != text)
    else:
        yield from (f"{text}any", f"any{text}", f"any{text}any")
    if named or _SHELL.fullmatch(text):
        yield text
