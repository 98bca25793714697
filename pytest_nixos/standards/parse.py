"""Controls, suites and expectations made from documents that the schema has accepted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_nixos.backend_name import EVERYWHERE, BackendName
from pytest_nixos.errors import CatalogueError
from pytest_nixos.findings import Severity
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.model import (
    Control,
    DeclaredSpec,
    Expectation,
    ObservedSpec,
    Operator,
    Quantifier,
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
        remedy=data["remedy"].strip(),
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
    for expect in control.expectations():
        if expect.op not in (Operator.MATCHES, Operator.NOT_MATCHES):
            continue
        try:
            re.compile(str(expect.value))
        except re.error as err:
            raise CatalogueError(
                f"{control.source}: {control.id}: expect.value: not a regular expression: {err}",
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
        options=_options(data),
        select=tuple(data.get("select", ())),
        expect=_optional_expectation(data.get("expect")),
        secret=data.get("secret", False),
    )


def _options(data: Mapping[str, Json]) -> tuple[str, ...]:
    return (data["option"],) if "option" in data else tuple(data["options"])


def _requirement(data: Mapping[str, Json]) -> Requirement:
    return Requirement(
        declared=DeclaredSpec(options=_options(data), select=tuple(data.get("select", ()))),
        expect=Expectation(op=Operator(data["op"]), value=data.get("value")),
        reason=data["reason"],
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
