"""Observations of one machine, read once per epoch and judged many times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar, cast

from pytest_nixos.machine.command import CommandResult
from pytest_nixos.observe.base import Probe, ProbeOutput, collect, read
from pytest_nixos.observe.unit_table import PRINT_UNITS, UnitQuery

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
        self._tables: list[tuple[UnitQuery, ProbeOutput]] = []
        self._along: Callable[[], Sequence[Probe[object]]] = tuple
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
        self._tables.clear()
        for probe in probes:
            self._outputs.pop(_question(probe), None)
        self.prefetch(probes)

    def take_along(self, probes: Callable[[], Sequence[Probe[object]]]) -> None:
        """Have the next trip that reads a table of units ask for these `probes` too.

        :param probes: will be asked for sooner or later, and share units with that table.
        """
        self._along = probes

    def prefetch(self, probes: Sequence[Probe[object]]) -> None:
        """Ask the guest for all `probes` that are not known yet, in one round trip.

        What the table of units of an earlier trip tells is known.
        """
        if self._machine.epoch != self._epoch:
            self._epoch = self._machine.epoch
            self._outputs.clear()
            self._tables.clear()
        asked = self._unknown(probes)
        if any(probe.units is not None for probe in asked.values()):
            along, self._along = self._along, tuple
            asked |= self._unknown(along())
        if not asked:
            return
        # Two questions of one kind have one name; within the trip each needs its own.
        numbered = [
            replace(probe, name=f"{probe.name} ({i + 1})") for i, probe in enumerate(asked.values())
        ]
        self.round_trips += 1
        answers = collect(
            lambda script: self._machine.run(script, timeout_s=self._timeout_s), numbered
        )
        self._outputs |= {q: answers[p.name] for q, p in zip(asked, numbered, strict=True)}
        self._keep_table(numbered, answers)

    def _unknown(self, probes: Sequence[Probe[object]]) -> dict[_Question, Probe[object]]:
        """Return the questions of `probes` that have no answer yet, each with one that asks it."""
        unknown: dict[_Question, Probe[object]] = {}
        for probe in probes:
            question = _question(probe)
            if question in self._outputs:
                continue
            if (told := self._told_by_table(probe)) is not None:
                self._outputs[question] = told
            else:
                unknown[question] = probe
        return unknown

    def _told_by_table(self, probe: Probe[object]) -> ProbeOutput | None:
        if probe.units is None or probe.script != PRINT_UNITS:
            return None
        return next((told for query, told in self._tables if query.covers(probe.units)), None)

    def _keep_table(
        self, probes: Sequence[Probe[object]], answers: Mapping[str, ProbeOutput]
    ) -> None:
        printed = next((answers[p.name] for p in probes if p.script == PRINT_UNITS), None)
        # A systemd that did not answer is asked again.
        if printed is not None and printed.stdout.strip():
            query = UnitQuery.together(p.units for p in probes if p.units is not None)
            self._tables.append((query, printed))


#: What a probe asks, whatever it is called and makes of the answer.
_Question = tuple[str, UnitQuery | None]


def _question(probe: Probe[object]) -> _Question:
    return probe.script, probe.units
