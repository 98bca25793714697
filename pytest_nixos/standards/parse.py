"""Controls, suites and expectations made from documents that the schema has accepted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Severity
from pytest_nixos.standards.declared_facts import DECLARED_FACTS
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.model import (
    Control,
    DeclaredSpec,
    Expectation,
    Fill,
    ObservedSpec,
    Operator,
    Quantifier,
    Remedy,
    Requirement,
    Suite,
)

__all__ = ["parse_control", "parse_suite"]

Json = Any


def parse_suite(document: Mapping[str, Json], source: Path) -> Suite:
    """Make a suite from a catalogue document.

    :raises CatalogueError: if a control names an unknown kind, lacks one of its parameters or has a bad pattern.
    """
    name = document["suite"]
    return Suite(
        name=name,
        title=document["title"],
        description=document["description"].strip(),
        controls=tuple(parse_control(data, name, source) for data in document["control"]),
        source=source,
    )


def parse_control(data: Mapping[str, Json], suite: str, source: Path) -> Control:
    """Make one control; see :func:`parse_suite` for the errors."""
    control = Control(
        id=data["id"],
        suite=suite,
        title=data["title"].strip(),
        severity=Severity[data["severity"]],
        threat=data["threat"].strip(),
        remedies=_remedies(data),
        fill={name: _fill(entry) for name, entry in data.get("fill", {}).items()},
        references={key: tuple(value) for key, value in data.get("references", {}).items()},
        disa_category=data.get("disa-category"),
        since=data.get("since"),
        until=data.get("until"),
        applies_to=_places(data.get("applies-to", [place.place for place in EVERYWHERE])),
        falsified_in=_places(data.get("falsified-in", [])),
        requires=tuple(_requirement(entry) for entry in data.get("requires", [])),
        observed=_observed(data.get("observed")),
        declared=_declared(data.get("declared")),
        expect=_optional_expectation(data.get("expect")),
        check=data.get("check", False),
        judged_as=data.get("judged-as"),
        manual=data.get("manual"),
        note=data.get("note", "").strip(),
        source=source,
    )
    _check_kind(control)
    _check_patterns(control)
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


def _check_patterns(control: Control) -> None:
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


def _declared(data: Mapping[str, Json] | None) -> DeclaredSpec | None:
    if data is None:
        return None
    return DeclaredSpec(
        options=_fact_options(data["fact"]) if "fact" in data else _options(data),
        fact=data.get("fact"),
        select=tuple(data.get("select", ())),
        expect=_optional_expectation(data.get("expect")),
        secret=data.get("secret", False),
    )


def _fact_options(name: str) -> tuple[str, ...]:
    if name not in DECLARED_FACTS:
        raise CatalogueError(
            f"declared.fact: {name!r} is not a fact{did_you_mean(name, DECLARED_FACTS)}",
            remedy=f"use one of {', '.join(sorted(DECLARED_FACTS))}",
        )
    return DECLARED_FACTS[name].options


def _options(data: Mapping[str, Json]) -> tuple[str, ...]:
    return (data["option"],) if "option" in data else tuple(data["options"])


def _requirement(data: Mapping[str, Json]) -> Requirement:
    return Requirement(
        declared=DeclaredSpec(options=_options(data), select=tuple(data.get("select", ()))),
        expect=Expectation(op=Operator(data["op"]), value=data.get("value")),
        reason=data.get("reason", ""),
    )


def _remedies(data: Mapping[str, Json]) -> tuple[Remedy, ...]:
    entries = data["remedies"] if "remedies" in data else [{"text": data["remedy"]}]
    return tuple(
        Remedy(
            text=entry["text"].strip(),
            since=entry.get("since"),
            until=entry.get("until"),
            goes_into=entry.get("goes-into"),
            when=tuple(_requirement(condition) for condition in entry.get("when", [])),
        )
        for entry in entries
    )


def _fill(data: Mapping[str, Json]) -> Fill:
    return Fill(
        pattern=data.get("pattern"),
        reads=data.get("reads", "found"),
        option=data.get("option"),
        table=data.get("table"),
    )


def _optional_expectation(data: Mapping[str, Json] | None) -> Expectation | None:
    return None if data is None else _expectation(data)


def _expectation(data: Mapping[str, Json]) -> Expectation:
    return Expectation(
        op=Operator(data["op"]),
        value=data.get("value"),
        parameter=data.get("parameter"),
        quantifier=Quantifier(data.get("quantifier", "whole")),
        fields={key: _expectation(inner) for key, inner in data.get("fields", {}).items()},
        alternatives=tuple(_expectation(inner) for inner in data.get("alternatives", [])),
    )
