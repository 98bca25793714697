"""Observations of one machine, read once per epoch and judged many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar, cast

from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import Probe, ProbeOutput, collect, read
from pytest_nixos.observe.unit_table import UnitQuery

__all__ = ["Observations", "Observed"]

T = TypeVar("T")


class Observed(Protocol):
    """The part of a machine that observing needs."""

    @property
    def epoch(self) -> int: ...

    def run(self, command: str, *, timeout_s: float = ..., stdin: bytes = ...) -> CommandResult: ...


class Observations:
    """Raw probe outputs of one machine, dropped whenever its epoch changes.

    :param timeout_s: limit of one collecting round trip.
    """

    def __init__(self, machine: Observed, *, timeout_s: float = 300.0) -> None:
        self._machine = machine
        self._timeout_s = timeout_s
        self._epoch = machine.epoch
        self._outputs: dict[_Question, ProbeOutput] = {}
        self.round_trips = 0

    def of(self, probe: Probe[T]) -> T:
        """Return what `probe` sees, asking the guest only if it was not asked in this epoch."""
        return read(probe, self.output(probe))

    def output(self, probe: Probe[T]) -> ProbeOutput:
        """Return what `probe` printed, as it came."""
        self.prefetch([cast("Probe[object]", probe)])
        return self._outputs[_question(probe)]

    def renew(self, probes: Sequence[Probe[object]]) -> None:
        """Ask the guest for `probes` once more, in one round trip."""
        for probe in probes:
            self._outputs.pop(_question(probe), None)
        self.prefetch(probes)

    def prefetch(self, probes: Sequence[Probe[object]]) -> None:
        """Ask the guest for all `probes` that are not known yet, in one round trip."""
        if self._machine.epoch != self._epoch:
            self._epoch = self._machine.epoch
            self._outputs.clear()
        asked = {_question(p): p for p in probes}
        missing = [question for question in asked if question not in self._outputs]
        if not missing:
            return
        # Two questions of one kind have one name; within the trip each needs its own.
        numbered = [
            replace(asked[q], name=f"{asked[q].name} ({i + 1})") for i, q in enumerate(missing)
        ]
        self.round_trips += 1
        answers = collect(
            lambda script: self._machine.run(script, timeout_s=self._timeout_s), numbered
        )
        self._outputs |= {q: answers[p.name] for q, p in zip(missing, numbered, strict=True)}


#: What a probe asks, whatever it is called and makes of the answer.
_Question = tuple[str, UnitQuery | None]


def _question(probe: Probe[object]) -> _Question:
    return probe.script, probe.units
