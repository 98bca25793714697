"""TOML documents of this project's own format, read and held against the schema.

The format is TOML: it has comments, one obvious way to write a string of Nix or a regular
expression, no surprises such as ``no`` meaning false, Python reads it with the standard library and
Nix with ``builtins.fromTOML``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pytest_nixos.errors import CatalogueError
from pytest_nixos.standards.compile_toml import as_plain
from pytest_nixos.standards.did_you_mean import did_you_mean
from pytest_nixos.standards.format import FORMS

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

__all__ = ["ENTRY_KEYS", "as_model", "check_schema", "read_document", "read_toml"]

Json = Any
T = TypeVar("T")

ENTRY_KEYS: Mapping[str, tuple[str, str]] = {
    "catalogue": ("control", "id"),
    "waivers": ("waiver", "control"),
}


def read_document(path: Path, kind: type[T]) -> T:
    """Read one file, held against the schema.

    :param kind: one of :data:`pytest_nixos.standards.format.FORMS`.
    :raises CatalogueError: naming the file, the line or entry, the field, and what was expected.
    """
    plain = read_toml(path, kind)
    check_schema(plain, _form(kind), source=str(path))
    return as_model(plain, kind, path)


def read_toml(path: Path, kind: type[object]) -> dict[str, Json]:
    """Read one file as plain values, held against nothing.

    :raises CatalogueError: if it cannot be read or is not TOML.
    """
    form = _form(kind)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise CatalogueError(
            f"{path}: cannot be read: {err.strerror}",
            remedy=f"name an existing {form} file, or make this one readable",
        ) from err
    except UnicodeDecodeError as err:
        raise CatalogueError(
            f"{path}: byte {err.start} is not UTF-8", remedy="save the file as UTF-8 text"
        ) from err
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise CatalogueError(
            f"{path}: not valid TOML: {err}",
            remedy="correct that line; strings of Nix are easiest in '''triple single quotes'''",
        ) from err
    plain: dict[str, Json] = as_plain(document)
    return plain


def as_model(plain: Mapping[str, Json], kind: type[T], path: Path) -> T:
    """Make a file's model of its plain values.

    :raises CatalogueError: naming the file and the field.
    """
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as err:
        raise CatalogueError(
            f"{path}: {err}",
            remedy="correct that field; docs/reference/controls/format.md lists every field",
        ) from err


def check_schema(document: Mapping[str, Json], form: str, *, source: str) -> None:
    """Hold `document` against the schema.

    :raises CatalogueError: for the most telling violation.
    """
    from jsonschema.exceptions import best_match

    error = best_match(_validator(form).iter_errors(document))
    if error is None:
        return
    entry, field = _place(document, form, list(error.absolute_path))
    where = ": ".join(part for part in (source, entry, field) if part)
    raise CatalogueError(
        f"{where}: {_what(error)}",
        remedy="correct that field; docs/reference/controls/format.md lists every field",
    )


def _form(kind: type[object]) -> str:
    return next(name for name, known in FORMS.items() if known is kind)


@cache
def _validator(form: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    text = files("pytest_nixos.standards").joinpath("schema.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    rooted = {**schema, "$ref": f"#/$defs/{form}"}
    return Draft202012Validator(rooted, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _place(document: Mapping[str, Json], form: str, path: list[str | int]) -> tuple[str, str]:
    """Name the entry (by its id where it has one) and the field inside it."""
    if form not in ENTRY_KEYS or len(path) < 2 or path[0] != ENTRY_KEYS[form][0]:
        return "", _dotted(path)
    table, key = ENTRY_KEYS[form]
    index = int(path[1])
    entry = document[table][index]
    name = entry.get(key) if isinstance(entry, dict) else None
    label = str(name) if isinstance(name, str) else f"{table} number {index + 1}"
    return label, _dotted(path[2:])


def _dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


def _what(error: ValidationError) -> str:  # noqa: PLR0911 - one sentence a keyword
    """Say what was expected in plain words; jsonschema's own words print whole documents."""
    got = _short(error.instance)
    wanted: Json = error.validator_value
    entry: Json = error.instance
    match error.validator:
        case "enum":
            return f"is {got}, expected one of {', '.join(map(str, wanted))}"
        case "type":
            return f"is {got}, expected a value of type {wanted}"
        case "pattern":
            return f"is {got}, expected text that matches {wanted}"
        case "format":
            return f"{error.instance!r} is no {wanted}"
        case "required":
            present = entry if isinstance(entry, Mapping) else {}
            missing = [key for key in wanted if key not in present]
            return f"lacks {', '.join(missing)}"
        case "additionalProperties" if isinstance(error.schema, Mapping):
            return _unknown_fields(entry, error.schema.get("properties", {}))
        case "oneOf" if not any("title" in alternative for alternative in wanted):
            names = [name for alternative in wanted for name in alternative["required"]]
            return f"needs exactly one of {', '.join(names)}"
        case "oneOf":
            return (
                "has to be judged in exactly one way: by data (observed or declared, and expect), "
                "by a Python check (check = true), as another control (judged-as = id), or by hand (manual = reason)"
            )
        case "not":
            return "has a combination of fields that exclude each other (no value with this op)"
        case _:
            return f"{got}: {error.message}"[:300]


def _unknown_fields(entry: Mapping[str, Json], known: Mapping[str, Json]) -> str:
    unknown = [key for key in entry if key not in known]
    near = did_you_mean(unknown[0], known) if len(unknown) == 1 else ""
    return f"has no field {', '.join(unknown)}{near}"


def _short(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
