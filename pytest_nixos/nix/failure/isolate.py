"""Finds what ends the evaluation of a host whose machine does evaluate.

``builtins.tryEval`` catches ``throw`` and ``assert``. A type error or a missing attribute in one
option that nothing else reads ends the whole evaluation instead; such options and facts are found
by halving.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_nixos.errors import EvalError
from pytest_nixos.nix.config.host_facts import host_facts

__all__ = ["Evaluate", "Isolation"]

Json = Any
# Takes the options to read and the facts to leave out.
Evaluate = Callable[[Sequence[Sequence[str]], Sequence[str]], Mapping[str, Json]]

_MAX_EVALUATIONS = 32
# Failures of the machine itself, for certain: a search would only double the time to the message.
_HOPELESS = re.compile(
    r"Failed assertions:|The option `[^']*' (?:does not exist|is used but not defined|has conflicting)"
    r"|syntax error|: it needs \S+, (?:whose license is unfree|which nixpkgs)|is locked by git-crypt"
    r"|has an unsupported attribute"
)


class Isolation:
    """One search.

    :param evaluate: evaluates the host with some of its facts and options.
    :param options: option path to attribute names.
    """

    def __init__(self, evaluate: Evaluate, options: Mapping[str, Sequence[str]]) -> None:
        self._evaluate_parts = evaluate
        self._options = options
        self._left = _MAX_EVALUATIONS

    def document(self, whole: EvalError) -> Mapping[str, Json]:
        """Return the host's document with what breaks it marked unreadable.

        :param whole: how the evaluation of everything failed.
        :raises EvalError: `whole`, if the machine itself does not evaluate.
        """
        facts = tuple(host_facts())
        everything = (*facts, *self._options)
        if _HOPELESS.search(whole.message) or not self._works(()):
            raise whole
        middle = len(facts)
        broken = {*self._broken(everything[:middle]), *self._broken(everything[middle:])}
        document = self._evaluate([item for item in everything if item not in broken])
        paths = [path for path in self._options if path not in broken]
        return {
            **document,
            "options": self._filled(paths, document["options"]),
            "machineOptions": self._filled(paths, document["machineOptions"]),
        }

    def _filled(self, paths: Sequence[str], answers: Sequence[Json]) -> list[Json]:
        found = dict(zip(paths, answers, strict=True))
        return [found.get(path, {"state": "unreadable"}) for path in self._options]

    def _broken(self, items: Sequence[str]) -> list[str]:
        if self._left <= 0:
            return list(items)
        if not items or self._works(items):
            return []
        if len(items) == 1:
            return list(items)
        middle = len(items) // 2
        return [*self._broken(items[:middle]), *self._broken(items[middle:])]

    def _works(self, items: Sequence[str]) -> bool:
        self._left -= 1
        try:
            self._evaluate(items)
        except EvalError:
            return False
        return True

    def _evaluate(self, items: Sequence[str]) -> Mapping[str, Json]:
        chosen = set(items)
        options = [names for path, names in self._options.items() if path in chosen]
        return self._evaluate_parts(options, [fact for fact in host_facts() if fact not in chosen])
