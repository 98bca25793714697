"""Controls, suites and expectations made of what files say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import UnsetType

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Severity
from pytest_nixos.standards.control.declared_facts import DECLARED_FACTS
from pytest_nixos.standards.control.model import (
    Control,
    DeclaredSpec,
    Expectation,
    Fill,
    ObservedSpec,
    Operator,
    Remedy,
    Requirement,
    Suite,
)
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.format import (
    CatalogueFile,
    ConditionEntry,
    ControlEntry,
    DeclaredEntry,
    ExpectEntry,
    FillEntry,
    given,
)
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.subject import Subject

__all__ = ["check_patterns", "parse_control", "parse_suite"]

Json = Any


def parse_suite(file: CatalogueFile, source: Path) -> Suite:
    """Make a suite of what a catalogue file says.

    :raises CatalogueError: if a control names an unknown kind or lacks one of its parameters.
    """
    return Suite(
        name=file.suite,
        title=file.title,
        description=file.description.strip(),
        controls=tuple(parse_control(entry, file.suite, source) for entry in file.control),
        source=source,
    )


def parse_control(entry: ControlEntry, suite: str, source: Path) -> Control:
    """Make one control; see :func:`parse_suite` for the errors."""
    control = Control(
        id=entry.id,
        suite=suite,
        title=entry.title.strip(),
        severity=Severity[entry.severity],
        threat=entry.threat.strip(),
        remedies=_remedies(entry),
        fill={name: _fill(fill) for name, fill in given(entry.fill, {}).items()},
        references={key: tuple(clauses) for key, clauses in entry.references.items()},
        disa_category=given(entry.disa_category, None),
        since=given(entry.since, None),
        until=given(entry.until, None),
        applies_to=_places(given(entry.applies_to, [place.place for place in EVERYWHERE])),
        falsified_in=_places(given(entry.falsified_in, [])),
        own_disks=given(entry.own_disks, ""),
        homes=entry.homes,
        requires=tuple(_requirement(entry, entry.reason) for entry in entry.requires),
        observed=_observed(given(entry.observed, None)),
        declared=_declared(given(entry.declared, None)),
        expect=_optional_expectation(given(entry.expect, None)),
        check=entry.check,
        judged_on=entry.judged_on,
        judged_as=given(entry.judged_as, None),
        manual=given(entry.manual, None),
        blames=tuple(Subject.parse(text) for text in given(entry.blames, [])),
        note=given(entry.note, "").strip(),
        source=source,
    )
    _check_kind(control)
    return control


def _check_kind(control: Control) -> None:
    if control.observed is None:
        return
    kind = KINDS.get(control.observed.kind)
    where = f"{control.source}: {control.id}: observed"
    if kind is None:
        raise CatalogueError(
            f"{where}.kind: {control.observed.kind!r} is not a kind{did_you_mean(control.observed.kind, KINDS)}",
            remedy=f"use one of {', '.join(sorted(KINDS))}",
        )
    if (wrong := kind.problem(control.observed.parameters)) is not None:
        raise CatalogueError(f"{where}: {wrong}", remedy=f"kind {kind.name} takes {kind.signature}")


def check_patterns(control: Control) -> None:
    """Hold the patterns of a control against the grammar of regular expressions.

    :raises CatalogueError: naming the first that is none.
    """
    patterns = [
        ("expect.value", str(expect.value))
        for expect in control.expectations()
        if expect.op in (Operator.MATCHES, Operator.NOT_MATCHES)
    ]
    patterns += [(f"fill.{name}", fill.pattern or "") for name, fill in control.fill.items()]
    for field, pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as err:
            raise CatalogueError(
                f"{control.source}: {control.id}: {field}: not a regular expression: {err}",
                remedy="correct the pattern; write it in 'single quotes' so that backslashes stay",
            ) from err


def _places(names: list[str]) -> frozenset[BackendName]:
    return frozenset(BackendName.named(name) for name in names)


def _observed(data: Mapping[str, Json] | None) -> ObservedSpec | None:
    if data is None:
        return None
    parameters = {key: value for key, value in data.items() if key != "kind"}
    return ObservedSpec(kind=data["kind"], parameters=parameters)


def _declared(entry: DeclaredEntry | None) -> DeclaredSpec | None:
    if entry is None:
        return None
    fact = given(entry.fact, None)
    options = (
        [entry.option] if not isinstance(entry.option, UnsetType) else given(entry.options, [])
    )
    return DeclaredSpec(
        options=tuple(options) if fact is None else _fact_options(fact),
        fact=fact,
        select=tuple(entry.select),
        expect=_optional_expectation(given(entry.expect, None)),
        secret=entry.secret,
    )


def _fact_options(name: str) -> tuple[str, ...]:
    if name not in DECLARED_FACTS:
        raise CatalogueError(
            f"declared.fact: {name!r} is not a fact{did_you_mean(name, DECLARED_FACTS)}",
            remedy=f"use one of {', '.join(sorted(DECLARED_FACTS))}",
        )
    return DECLARED_FACTS[name].options


def _requirement(entry: ConditionEntry, reason: str = "") -> Requirement:
    return Requirement(
        declared=DeclaredSpec(options=(entry.option,), select=tuple(entry.select)),
        expect=Expectation(op=entry.op, value=given(entry.value, None)),
        reason=reason,
    )


def _remedies(entry: ControlEntry) -> tuple[Remedy, ...]:
    if not isinstance(entry.remedy, UnsetType):
        return (Remedy(text=entry.remedy.strip()),)
    return tuple(
        Remedy(
            text=remedy.text.strip(),
            since=given(remedy.since, None),
            until=given(remedy.until, None),
            goes_into=given(remedy.goes_into, None),
            about=given(remedy.about, None),
            when=tuple(_requirement(condition) for condition in given(remedy.when, [])),
        )
        for remedy in given(entry.remedies, [])
    )


def _fill(entry: FillEntry) -> Fill:
    return Fill(
        pattern=given(entry.pattern, None),
        reads=entry.reads,
        option=given(entry.option, None),
        table=given(entry.table, None),
    )


def _optional_expectation(entry: ExpectEntry | None) -> Expectation | None:
    return None if entry is None else _expectation(entry)


def _expectation(entry: ExpectEntry) -> Expectation:
    return Expectation(
        op=entry.op,
        value=given(entry.value, None),
        parameter=given(entry.parameter, None),
        quantifier=entry.quantifier,
        fields={key: _expectation(inner) for key, inner in given(entry.fields, {}).items()},
        alternatives=tuple(_expectation(inner) for inner in given(entry.alternatives, [])),
    )
