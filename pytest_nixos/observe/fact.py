"""Facts: short guest scripts, many read by one probe, each with a parser of its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pytest_nixos.observe.base import Probe, ProbeOutput

__all__ = ["Fact", "Lacking", "fact_probe"]

Json = Any


class Lacking(msgspec.Struct, frozen=True):
    """The machine has nothing that the fact could be about.

    :param reason: said in the report, for example "the machine has no sshd".
    """

    reason: str


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to know about a machine.

    :param script: bash that only reads. Exit status 3 means that the machine has nothing of the
        sort.
    :param parse: turns what it printed into the value; never raises on odd guest output.
    :param lacking: what exit status 3 means, in words.
    :param about: what it reads, in words, for the documentation.
    :param prelude: bash that runs once before all facts that have the same one, for what they
        share; its variables are theirs.
    :param needs: programs without which an empty answer would mean nothing; where one is missing
        the fact is left out.
    :param inline: whether the script runs as a function of the probe's shell: it ends by ``return``, not
        by ``exit``, and changes nothing there but plain variables. A subshell costs an emulated guest
        10 ms and more.
    """

    script: str
    parse: Callable[[str], Json]
    about: str
    lacking: str = "the machine has nothing of the sort"
    needs: tuple[str, ...] = ()
    prelude: str = ""
    inline: bool = False

    @property
    def command(self) -> str:
        """Bash that runs the script, with status 127 where a program that it needs is missing."""
        begin, leave, end = (
            ("pn_fact() {", "return", "}; pn_fact") if self.inline else ("(", "exit", ")")
        )
        missing = f'command -v "$p" >/dev/null || {leave} 127'
        guard = f"for p in {' '.join(self.needs)}; do {missing}; done\n" if self.needs else ""
        return f"{begin} {guard}{self.script}\n{end}"


def fact_probe(
    name: str, facts: Mapping[str, Fact], wanted: Sequence[str]
) -> Probe[Mapping[str, Json]]:
    """Ask for the `wanted` facts in one go.

    :return: probe of fact name to value, or to :class:`Lacking`; a fact whose script failed is left
        out.
    """
    chosen = list(dict.fromkeys(wanted))
    preludes = dict.fromkeys(facts[key].prelude for key in chosen if facts[key].prelude)
    parts = [
        *preludes,
        *(f"title {shlex.quote(key)}; {facts[key].command}; title status $?" for key in chosen),
    ]
    return Probe(
        name=name,
        script="\n".join(parts) or ":",
        parse=lambda output: _parse(output, {key: facts[key] for key in chosen}),
    )


def _parse(output: ProbeOutput, facts: Mapping[str, Fact]) -> Mapping[str, Json]:
    values: dict[str, Json] = {}
    records = output.records
    for (key, text), (end, _) in zip(records[::2], records[1::2], strict=False):
        fact = facts.get(key)
        if fact is None or not end.startswith("status "):
            continue
        if end == "status 3":
            values[key] = Lacking(fact.lacking)
        elif end == "status 0":
            values[key] = fact.parse(text)
    return values
