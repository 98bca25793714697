"""What a catalogue, profile or waivers file may say: one model, of which the schema is made and
into which files are read.

``python -m pytest_nixos.standards.format`` writes ``schema.json``, the published JSON schema.
Users' files are held against it, because its messages name file, entry and field; what the model
cannot say (which fields exclude each other) is in ``_RULES``.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pytest_nixos.backend_name import EVERYWHERE
from pytest_nixos.findings import Severity
from pytest_nixos.standards.control.model import STANDARDS, Operator, Quantifier

__all__ = [
    "FORMS",
    "CatalogueFile",
    "ConditionEntry",
    "ControlEntry",
    "DeclaredEntry",
    "ExpectEntry",
    "FillEntry",
    "FrameworkFile",
    "ProfileFile",
    "SelectionEntry",
    "Waiver",
    "WaiversFile",
    "given",
    "schema",
]

Json = Any
T = TypeVar("T")
F = TypeVar("F")

Text = Annotated[str, Meta(min_length=1, pattern=r"\S")]
SubjectName = Annotated[
    str, Meta(pattern=r"^(machine|activation|secret|mount|network|unit|port)(:\S+)?$")
]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]*$")]
Id = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9]*-[A-Z]?[0-9]{2,3}$")]
Release = Annotated[str, Meta(pattern=r"^[0-9]{2}\.(05|11)$")]
_KEY = r"""([A-Za-z_][A-Za-z0-9_'-]*|"[^"$\\]+")"""
Option = Annotated[str, Meta(pattern=rf"^{_KEY}(\.{_KEY})*$")]
Select = list[Annotated[str, Meta(min_length=1)]]
SeverityName = Annotated[
    str, Meta(extra_json_schema={"enum": [s.name for s in sorted(Severity, reverse=True)]})
]
Place = Annotated[str, Meta(extra_json_schema={"enum": sorted(p.place for p in EVERYWHERE)})]
Places = Annotated[list[Place], Meta(min_length=1, extra_json_schema={"uniqueItems": True})]
Standard = Annotated[str, Meta(extra_json_schema={"enum": list(STANDARDS)})]
Day = Annotated[dt.date, Meta(extra_json_schema={"pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"})]
#: A flag that is only ever said where it holds.
Said = Annotated[bool, Meta(extra_json_schema={"const": True})]


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """A table of a file; a field that is not there is ``UNSET``."""


class ExpectEntry(Entry, frozen=True, kw_only=True):
    """``expect``."""

    op: Operator
    value: Any = UNSET
    parameter: Name | UnsetType = UNSET
    quantifier: Quantifier = Quantifier.WHOLE
    fields: Annotated[dict[str, ExpectEntry], Meta(min_length=1)] | UnsetType = UNSET
    alternatives: Annotated[list[ExpectEntry], Meta(min_length=2)] | UnsetType = UNSET


class DeclaredEntry(Entry, frozen=True, kw_only=True):
    """``declared``."""

    option: Option | UnsetType = UNSET
    options: (
        Annotated[list[Option], Meta(min_length=2, extra_json_schema={"uniqueItems": True})]
        | UnsetType
    ) = UNSET
    fact: Name | UnsetType = UNSET
    select: Select = []
    expect: ExpectEntry | UnsetType = UNSET
    secret: Said = False


class ConditionEntry(Entry, frozen=True, kw_only=True):
    """``remedies.when``."""

    option: Option
    select: Select = []
    op: Operator
    value: Any = UNSET


class RequirementEntry(ConditionEntry, frozen=True, kw_only=True):
    """``requires``."""

    reason: Text


class RemedyEntry(Entry, frozen=True, kw_only=True):
    """``remedies``."""

    text: Text
    since: Release | UnsetType = UNSET
    until: Release | UnsetType = UNSET
    goes_into: Text | UnsetType = UNSET
    about: Text | UnsetType = UNSET
    when: Annotated[list[ConditionEntry], Meta(min_length=1)] | UnsetType = UNSET


class FillEntry(Entry, frozen=True, kw_only=True):
    """``fill``."""

    pattern: Text | UnsetType = UNSET
    reads: Literal["found", "reason"] = "found"
    table: Literal["sysctl-modules"] | UnsetType = UNSET
    option: Option | UnsetType = UNSET


class ControlEntry(Entry, frozen=True, kw_only=True):
    """``[[control]]``; ``observed`` is checked by its kind."""

    id: Id
    title: Text
    severity: SeverityName
    threat: Text
    remedy: Text | UnsetType = UNSET
    remedies: Annotated[list[RemedyEntry], Meta(min_length=1)] | UnsetType = UNSET
    fill: Annotated[dict[str, FillEntry], Meta(min_length=1)] | UnsetType = UNSET
    # Versions of msgspec before 0.22 do not limit the keys of a mapping by themselves.
    references: Annotated[
        dict[Standard, Annotated[list[Text], Meta(min_length=1)]],
        Meta(extra_json_schema={"propertyNames": {"enum": list(STANDARDS)}}),
    ] = {}
    disa_category: Literal[1, 2, 3] | UnsetType = UNSET
    since: Release | UnsetType = UNSET
    until: Release | UnsetType = UNSET
    applies_to: Places | UnsetType = UNSET
    falsified_in: Places | UnsetType = UNSET
    own_disks: Literal["judged", "falsified"] | UnsetType = UNSET
    homes: Said = False
    requires: list[RequirementEntry] = []
    observed: dict[str, Any] | UnsetType = UNSET
    declared: DeclaredEntry | UnsetType = UNSET
    expect: ExpectEntry | UnsetType = UNSET
    check: Said = False
    judged_on: Literal["machine", "config", "outside", "outside and machine"] = "machine"
    judged_as: Id | UnsetType = UNSET
    manual: Text | UnsetType = UNSET
    blames: list[SubjectName] | UnsetType = UNSET
    overrides: Said = False
    note: Text | UnsetType = UNSET


class CatalogueFile(Entry, frozen=True, kw_only=True):
    """A file of a catalogue: one suite, or more controls of a suite that is there."""

    suite: Name
    title: Text
    description: Text
    control: Annotated[list[ControlEntry], Meta(min_length=1)]


class MappedEntry(Entry, frozen=True, kw_only=True):
    """``[[clause]]`` of a framework: controls whose verdicts give evidence for it.

    :param about: what it is about, never in the words of a text under copyright.
    :param but: what of it the evidence is about, where it leaves out a part that one would expect.
    """

    number: Text
    about: Text
    controls: list[Id] = []
    suites: list[Name] = []
    but: Text | UnsetType = UNSET


class UnmappedEntry(Entry, frozen=True, kw_only=True):
    """``[[unmapped]]``: clauses for which no control gives evidence."""

    reason: Text
    clauses: Annotated[list[Text], Meta(min_length=1)]


class FrameworkFile(Entry, frozen=True, kw_only=True):
    """A framework: every clause of it, with the controls that give evidence or why none does.

    :param basis: whose judgement the mapping is.
    :param parts_of: pattern of the clause within a more exact reference (``AU-3`` of ``AU-3 a``).
    """

    standard: Standard
    source: Text
    basis: Text
    parts_of: Text | UnsetType = UNSET
    clause: Annotated[list[MappedEntry], Meta(min_length=1)]
    unmapped: list[UnmappedEntry] = []


class SelectionEntry(Entry, frozen=True, kw_only=True):
    """``select`` and ``exclude``."""

    controls: list[Id] = []
    suites: list[Name] = []
    standards: list[Name] = []
    references: dict[str, list[str]] = {}


class ProfileFile(Entry, frozen=True, kw_only=True):
    """A profile."""

    profile: Name
    title: Text
    description: Text
    extends: list[Name] = []
    select: SelectionEntry = SelectionEntry()
    exclude: SelectionEntry = SelectionEntry()
    parameters: dict[Name, Any] = {}
    severities: dict[str, SeverityName] = {}


class Waiver(Entry, frozen=True, kw_only=True):
    """One dated, reasoned exception.

    :param host: glob over host names.
    :param owner: who answers for it.
    :param expires: last day on which it counts.
    """

    control: Id
    host: Text
    reason: Text
    owner: Text
    expires: Day

    def expired(self, today: dt.date) -> bool:
        """Whether its last day is over."""
        return today > self.expires


class WaiversFile(Entry, frozen=True, kw_only=True):
    """A file of waivers."""

    waiver: list[Waiver]


#: What a form of file is called, in messages and in the schema.
FORMS: Mapping[str, type[Entry]] = {
    "catalogue": CatalogueFile,
    "framework": FrameworkFile,
    "profile": ProfileFile,
    "waivers": WaiversFile,
}


def given(value: F | UnsetType, default: T) -> F | T:
    """Return `value`, or `default` where the file does not say it."""
    return default if isinstance(value, UnsetType) else value


def _values(*operators: Operator, then: Json) -> Json:
    names = [operator.value for operator in operators]
    return {"if": {"properties": {"op": {"enum": names}}}, "then": then}


def _only(title: str, required: str, *excluded: str, any_of: tuple[str, ...] = ()) -> Json:
    rule: dict[str, Json] = {"title": title, "required": [required]}
    if any_of:
        rule["anyOf"] = [{"required": [name]} for name in any_of]
    return {**rule, "not": {"anyOf": [{"required": [name]} for name in excluded]}}


def _value(kind: str, **more: Json) -> Json:
    return {"required": ["value"], "properties": {"value": {"type": kind, **more}}}


_O = Operator
#: What a field asks of another, by entry.
_RULES: Mapping[str, Mapping[str, Json]] = {
    "ExpectEntry": {
        "allOf": [
            _values(
                _O.IN,
                _O.NOT_IN,
                _O.CONTAINS_ANY,
                _O.CONTAINS_ALL,
                _O.SUBSET_OF,
                _O.EXCLUDES,
                then=_value("array"),
            ),
            _values(_O.EQ, _O.NE, _O.CONTAINS, then={"required": ["value"]}),
            _values(_O.GE, _O.LE, _O.GT, _O.LT, then=_value("number")),
            _values(_O.MATCHES, _O.NOT_MATCHES, _O.MODE_AT_MOST, then=_value("string")),
            _values(
                _O.BETWEEN, then=_value("array", minItems=2, maxItems=2, items={"type": "number"})
            ),
            _values(
                _O.PRESENT,
                _O.ABSENT,
                _O.EMPTY,
                _O.NOT_EMPTY,
                _O.AS_DECLARED,
                then={"not": {"required": ["value"]}},
            ),
            _values(_O.FIELDS, then={"required": ["fields"]}),
            _values(_O.ANY_OF, _O.ALL_OF, then={"required": ["alternatives"]}),
            _values(_O.LENGTH, then=_value("integer", minimum=0)),
        ]
    },
    "DeclaredEntry": {"oneOf": [{"required": [name]} for name in ("option", "options", "fact")]},
    "FillEntry": {"oneOf": [{"required": [name]} for name in ("pattern", "option")]},
    "ControlEntry": {
        "allOf": [{"oneOf": [{"required": ["remedy"]}, {"required": ["remedies"]}]}],
        # What data are read from says it of them.
        "dependentRequired": {"judged-on": ["check"]},
        "oneOf": [
            _only("judged by a Python check", "check", "manual", "judged-as"),
            _only("judged as another control", "judged-as", "check", "manual", "expect"),
            _only("judged by hand", "manual", "check", "judged-as", "observed", "expect"),
            _only(
                "judged by data: observed or declared, and expect",
                "expect",
                "check",
                "manual",
                "judged-as",
                any_of=("observed", "declared"),
            ),
        ],
    },
}


class _Observed(Entry, frozen=True, kw_only=True):
    """``observed``: a kind, and what that kind takes."""

    kind: Name


def schema() -> Mapping[str, Json]:
    """Return the JSON schema of all forms; each is ``#/$defs/<form>``."""
    _, entries = msgspec.json.schema_components(
        [*FORMS.values(), _Observed], ref_template="#/$defs/{name}"
    )
    definitions = {_short(name): _plain(entry) for name, entry in entries.items()}
    for name, rules in _RULES.items():
        definitions[_short(name)].update(rules)
    definitions["control"]["properties"]["observed"] = {"$ref": "#/$defs/observed"}
    del definitions["observed"]["additionalProperties"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "pytest-nixos catalogue, profile and waiver files",
        "$defs": definitions,
    }


def _short(name: str) -> str:
    return name.removesuffix("Entry").removesuffix("File").removeprefix("_").lower()


def _plain(entry: Json) -> Json:
    """Leave out what only repeats the model, such as titles that are names of classes."""
    if isinstance(entry, list):
        return [_plain(item) for item in entry]
    if not isinstance(entry, Mapping):
        return entry
    kept: dict[str, Json] = {}
    # Of two violations jsonschema tells the one whose keyword comes first: a misspelt field before
    # the field that lacks.
    for key, value in sorted(entry.items(), key=lambda item: item[0] != "additionalProperties"):
        if key in ("title", "description", "default") and not isinstance(value, Mapping):
            continue
        if key == "properties":
            kept[key] = {name: _plain(inner) for name, inner in value.items()}
        elif key == "$ref":
            kept[key] = f"#/$defs/{_short(value.rpartition('/')[2])}"
        else:
            kept[key] = _plain(value)
    return kept


def main() -> int:
    """Write the schema beside this module."""
    path = Path(__file__).with_name("schema.json")
    path.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
