"""Observations of one machine, read once per epoch and judged many times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, cast

from pytest_nixos.machine.base import CommandResult
from pytest_nixos.observe.base import Probe, ProbeOutput, collect

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
        self._outputs: dict[tuple[str, str], ProbeOutput] = {}
        self.round_trips = 0

    def of(self, probe: Probe[T]) -> T:
        """Return what `probe` sees, asking the guest only if it was not asked in this epoch."""
        self.prefetch([cast(Probe[object], probe)])
        return probe.parse(self._outputs[probe.name, probe.script])

    def prefetch(self, probes: Sequence[Probe[object]]) -> None:
        """Ask the guest for all `probes` that are not known yet, in one round trip."""
        if self._machine.epoch != self._epoch:
            self._epoch = self._machine.epoch
            self._outputs.clear()
        missing = [p for p in probes if (p.name, p.script) not in self._outputs]
        if not missing:
            return
        self.round_trips += 1
        answers = collect(
            lambda script: self._machine.run(script, timeout_s=self._timeout_s), missing
        )
        self._outputs |= {(p.name, p.script): answers[p.name] for p in missing}
