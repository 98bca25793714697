"""Probes, and how many of them are read in one round trip."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pytest_nixos.errors import TransportError
from pytest_nixos.machine.command import DRAW_MARK, CommandResult, drawn_mark
from pytest_nixos.observe.at_once import TAKE_TABLE, at_once
from pytest_nixos.observe.text import split_lines, whole
from pytest_nixos.observe.unit_table import UnitQuery, table_script

__all__ = ["Probe", "ProbeOutput", "RunCommand", "collect", "observe", "read"]

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
RunCommand = Callable[[str], CommandResult]

_BEGIN = (
    DRAW_MARK
    + r"""
title() {{ printf '\n%s=%s\n' "$pn_mark" "$*"; }}
printf '\n{token} %s\n' "$pn_mark"
"""
)
# No probe gets hold of what another one prints, which tells the mark.
_ONE = r"""( {take}
for pn_fd in $pn_fds; do exec {{pn_fd}}<&-; done
{script}
) 2>/dev/null </dev/null; printf '\n%s %d {index}\n' "$pn_mark" $?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutput:
    """What one probe printed in the guest.

    :param mark: what the title lines of its round trip begin with; nobody in the guest could know
        it. Empty for answers that are written by hand.
    """

    stdout: bytes
    exit_status: int
    mark: str = field(default="", compare=False, repr=False)

    @property
    def text(self) -> str:
        """Standard output as UTF-8, undecodable bytes replaced."""
        return self.stdout.decode(errors="replace")

    @property
    def records(self) -> Sequence[tuple[str, str]]:
        """Title and text of each part that a script began with ``title WORDS``, in order.

        What comes before the first title is dropped.
        """
        return [(title, raw.decode(errors="replace")) for title, raw in self.raw_records]

    @property
    def raw_records(self) -> Sequence[tuple[str, bytes]]:
        """As :attr:`records`, and what was printed as it is."""
        _, *parts = (b"\n" + self.stdout).split(f"\n{self.mark}=".encode())
        split = (part.partition(b"\n") for part in parts)
        return [(title.decode(errors="replace"), raw) for title, _, raw in split]

    @property
    def sections(self) -> Mapping[str, Sequence[str]]:
        """Lines by title; of two parts with one title the last counts."""
        return {title: split_lines(text) for title, text in self.records}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Generic[T_co]):
    """A question to a machine.

    :param name: unique; names the raw output where observations are saved.
    :param script: bash fragment that only reads; it runs in a subshell with standard error dropped.
        ``title WORDS`` begins a part of its output, which no text that the guest holds can end or
        imitate.
    :param parse: turns the output into the observation; never raises on odd guest output.
    :param units: what it needs of the trip's table of units, which its script finds as the array
        ``pn_units``: the lines that ``systemctl show`` prints, of these units and others.
    """

    name: str
    script: str
    parse: Callable[[ProbeOutput], T_co]
    units: UnitQuery | None = None


def collect(run: RunCommand, probes: Sequence[Probe[object]]) -> Mapping[str, ProbeOutput]:
    """Run all `probes` in one guest round trip; those of one script, and with one table of units, get one
    answer.

    A script with a NUL in it (from a name that the host's config or a catalogue holds) cannot be
    sent; its output is empty, with the exit status 126 of what cannot be run.

    :return: raw output by probe name.
    :raises ValueError: if two probes have one name.
    :raises TransportError: if the guest's answer is cut short.
    """
    if len({probe.name for probe in probes}) < len(probes):
        raise ValueError("two probes of one name in one round trip")
    outputs = {p.name: ProbeOutput(stdout=b"", exit_status=126) for p in probes}
    # Who needs the table of units comes last: it is asked for meanwhile.
    takers: dict[tuple[bool, str], list[Probe[object]]] = {}
    for probe in probes:
        if "\0" not in probe.script:
            takers.setdefault((probe.units is not None, probe.script), []).append(probe)
    asked = sorted(takers, key=lambda question: question[0])
    token = f"--{secrets.token_hex(16)}"
    parts = [
        _ONE.format(script=script, index=i, take=TAKE_TABLE if reads_units else "")
        for i, (reads_units, script) in enumerate(asked)
    ]
    queries = [probe.units for probe in probes if probe.units is not None]
    table = table_script(UnitQuery.together(queries)) if queries else ""
    result = run(_BEGIN.format(token=token) + at_once(parts, table=table))
    mark, rest = drawn_mark(result.stdout, token)
    answers = {} if mark is None else _answers(rest, mark)
    for index, question in enumerate(asked):
        for probe in takers[question]:
            if index not in answers:
                raise TransportError(
                    f"probe {probe.name}: the guest's answer ends early (exit status {result.exit_status})",
                    remedy="run again with -v; if it happens again, look at the guest's journal for an OOM kill",
                )
            outputs[probe.name] = answers[index]
    return outputs


def _answers(rest: bytes, mark: bytes) -> dict[int, ProbeOutput]:
    """Return what each probe printed, by its number; they ended in any order."""
    answers: dict[int, ProbeOutput] = {}
    while True:
        body, separator, rest = rest.partition(b"\n%b " % mark)
        line, newline, rest = rest.partition(b"\n")
        status, _, number = line.decode(errors="replace").partition(" ")
        index = whole(number)
        if not separator or not newline or index is None:
            return answers
        ended = whole(status)
        answers[index] = ProbeOutput(
            stdout=body, exit_status=126 if ended is None else ended, mark=mark.decode()
        )


def observe(run: RunCommand, probe: Probe[R]) -> R:
    """Run one probe and return its observation; use :func:`collect` for several.

    :raises TransportError: if the guest's answer is cut short.
    """
    return read(probe, collect(run, [probe])[probe.name])


def read(probe: Probe[R], output: ProbeOutput) -> R:
    """Return what `probe` makes of its output.

    A parser has to take whatever a guest prints; where one does not, that is told as what it is,
    and nothing is judged by it.

    :raises TransportError: if the parser gave up.
    """
    try:
        return probe.parse(output)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as err:
        raise TransportError(
            f"probe {probe.name}: what the guest printed cannot be read ({type(err).__name__}: {err})",
            remedy="report it with the output of -v; a guest that prints such things may be broken or hostile",
        ) from err
