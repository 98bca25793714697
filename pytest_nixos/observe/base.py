"""Probes, and how many of them are read in one round trip."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pytest_nixos.errors import TransportError
from pytest_nixos.machine.command import CommandResult

__all__ = ["Probe", "ProbeOutput", "RunCommand", "collect", "observe"]

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
RunCommand = Callable[[str], CommandResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutput:
    """What one probe printed in the guest."""

    stdout: bytes
    exit_status: int

    @property
    def text(self) -> str:
        """Standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Generic[T_co]):
    """A question to a machine.

    :param name: unique; names the raw output where observations are saved.
    :param script: bash fragment that only reads; it runs in a subshell with standard error dropped.
    :param parse: turns the output into the observation; never raises on odd guest output.
    """

    name: str
    script: str
    parse: Callable[[ProbeOutput], T_co]


def collect(run: RunCommand, probes: Sequence[Probe[object]]) -> Mapping[str, ProbeOutput]:
    """Run all `probes` in one guest round trip.

    :return: raw output by probe name.
    :raises ValueError: if two probes have one name.
    :raises TransportError: if the guest's answer is cut short.
    """
    if len({probe.name for probe in probes}) < len(probes):
        raise ValueError("two probes of one name in one round trip")
    mark = f"--{secrets.token_hex(16)}"
    script = "\n".join(
        f"( {probe.script}\n) 2>/dev/null </dev/null; printf '\\n{mark} %d\\n' $?"
        for probe in probes
    )
    result = run(script)
    outputs: dict[str, ProbeOutput] = {}
    rest = result.stdout
    for probe in probes:
        body, separator, rest = rest.partition(f"\n{mark} ".encode())
        status, newline, rest = rest.partition(b"\n")
        if not separator or not newline:
            raise TransportError(
                f"probe {probe.name}: the guest's answer ends early (exit status {result.exit_status})",
                remedy="run again with -v; if it happens again, look at the guest's journal for an OOM kill",
            )
        outputs[probe.name] = ProbeOutput(stdout=body, exit_status=int(status))
    return outputs


def observe(run: RunCommand, probe: Probe[R]) -> R:
    """Run one probe and return its observation; use :func:`collect` for several.

    :raises TransportError: if the guest's answer is cut short.
    """
    return probe.parse(collect(run, [probe])[probe.name])
