"""Which options NixOS has, by release, as far as remedies name them; and whether a value is of
an option's type.

``python -m tests.machine.remedies.table`` writes what the tree that ``PYTEST_NIXOS_NIXPKGS`` names
says into ``options.tsv``; lines about other releases are written by hand, each with its source.
``*`` stands for a name that the host chooses.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_nixos.standards.judging.applicability import outside_releases
from tests.machine.remedies.samples import Text, as_module, texts

__all__ = ["TABLE", "Option", "is_of_type", "read_table"]

Json = Any
HERE = Path(__file__).parent
TABLE = HERE / "options.tsv"
_FIELDS = ("option", "type", "since", "until", "source")
_TREE = "the option itself, on a tree of 24.05"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of some releases.

    :param type: the type as nixpkgs describes it.
    :param since: first release that has it, ``""`` for one older than 24.05.
    :param until: last release that has it under this name, ``""`` for one that the newest known
        release has.
    """

    option: str
    type: str
    since: str
    until: str
    source: str

    def is_in(self, release: str) -> bool:
        """Whether the release has it."""
        return (not self.since or self.since <= release) and (
            not self.until or release <= self.until
        )

    def depth_in(self, path: Sequence[str]) -> int:
        """Return how many parts of `path` lead to this option, 0 if it leads elsewhere."""
        own = self.option.split(".")
        fits = len(own) <= len(path) and all(
            mine in ("*", theirs) for mine, theirs in zip(own, path, strict=False)
        )
        return len(own) if fits else 0


def read_table() -> tuple[Option, ...]:
    """Read the kept table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader((line for line in file if line[0] != "#"), delimiter="\t")
        return tuple(Option(**row) for row in rows)


#: Descriptions of nixpkgs that name no type by its words.
_ANYTHING = re.compile(
    r"anything|raw value|unspecified value|nixpkgs config|YAML value|JSON value|TOML value|submodule|open submodule.*"
)
_TEXT = re.compile(r".*\b(string|strings|path|package|line)\b.*", re.DOTALL)
_NUMBER = re.compile(r".*\b(integer|number)\b.*", re.DOTALL)


def is_of_type(value: Json, description: str) -> bool:
    """Whether a value as JSON is of a type that nixpkgs describes so; a package or path is its
    text.
    """
    description = description.strip()
    if _ANYTHING.fullmatch(description):
        return True
    if description.startswith("(") and _closes_at_end(description):
        return is_of_type(value, description[1:-1])
    if (rest := _after(description, "null or ")) is not None:
        return value is None or is_of_type(value, rest)
    for start in ("list of ", "non-empty (list of "):
        if (rest := _after(description, start)) is not None:
            inner = rest.removesuffix(")") if start.startswith("non") else rest
            return isinstance(value, list) and all(is_of_type(v, inner) for v in value)
    for start in ("attribute set of ", "lazy attribute set of "):
        if (rest := _after(description, start)) is not None:
            return isinstance(value, dict) and all(is_of_type(v, rest) for v in value.values())
    if description.startswith(("one of ", "value ")):
        return _is_one_of(value, description)
    parts = _alternatives(description)
    if len(parts) > 1:
        return any(is_of_type(value, part) for part in parts)
    return _is_plain(value, description)


def _is_plain(value: Json, description: str) -> bool:
    if description == "boolean":
        return isinstance(value, bool)
    if description in ("attribute set", "nixpkgs overlay"):
        return isinstance(value, dict) or value == "<function>"
    if re.search(r"\batom\b|systemd option|sysctl option value", description):
        return isinstance(value, str | int | float | bool | list) or value is None
    if _NUMBER.fullmatch(description) and "string" not in description:
        bounds = re.search(r"between (-?\d+) and (-?\d+)", description)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (bounds is None or int(bounds[1]) <= value <= int(bounds[2]))
    if (pattern := re.search(r"string matching the pattern (.*)$", description)) is not None:
        return isinstance(value, str) and re.fullmatch(_posix(pattern[1]), value) is not None
    if _TEXT.fullmatch(description):
        return isinstance(value, str)
    raise ValueError(f"no rule for the type {description!r}")


def _posix(pattern: str) -> str:
    for name, characters in (("digit", "0-9"), ("alnum", "A-Za-z0-9")):
        pattern = pattern.replace(f"[:{name}:]", characters)
    return pattern


def _is_one_of(value: Json, description: str) -> bool:
    literals = re.findall(r'"([^"]*)"|\b(true|false|null)\b', description)
    known = [{"true": True, "false": False, "null": None}.get(w) if w else t for t, w in literals]
    return value in known or ("or string" in description and isinstance(value, str))


def _after(description: str, start: str) -> str | None:
    return description.removeprefix(start) if description.startswith(start) else None


def _closes_at_end(text: str) -> bool:
    depth = 0
    for number, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return number == len(text) - 1
    return False


def _alternatives(description: str) -> list[str]:
    """Split at the word `or` where no bracket is open."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"[()\[\]]| or ", description):
        if match[0] in "([":
            depth += 1
        elif match[0] in ")]":
            depth -= 1
        elif depth == 0:
            parts.append(description[start : match.start()])
            start = match.end()
    return [*parts, description[start:]]


def _tree_rows(nixpkgs: str) -> tuple[str, dict[str, str]]:
    """Ask a tree for the options of every remedy that its release has."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mine = [t for t in texts() if t.is_module and _is_for(t, "24.05")]
        files = [str(as_module(t.text, folder / f"{t.name}.nix")) for t in mine]
        (folder / "request.json").write_text(json.dumps({"files": files}))
        arguments = {"nixpkgs": nixpkgs, "request": str(folder / "request.json")}
        words = [word for key, value in arguments.items() for word in ("--arg", key, value)]
        answer = subprocess.run(
            ["nix-instantiate", "--eval", "--strict", "--json", *words, str(HERE / "types.nix")],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = json.loads(answer.stdout)
    return found["release"], {
        row["option"]: " ".join(row["type"].split())
        for rows in found["rows"]
        for row in rows
        if row
    }


def _is_for(text: Text, release: str) -> bool:
    spans = ((text.remedy.since, text.remedy.until), (text.control.since, text.control.until))
    return all(outside_releases(since, until, release) is None for since, until in spans)


def write_table(rows: Iterable[Option], head: str) -> None:
    """Write the table, sorted."""
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        file.write(head)
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(_FIELDS)
        for row in sorted(rows, key=lambda r: (r.option, r.since)):
            writer.writerow([getattr(row, field) for field in _FIELDS])


def main() -> int:
    """Bring the lines of the tree up to date and keep the others."""
    release, found = _tree_rows(os.environ["PYTEST_NIXOS_NIXPKGS"])
    head = "".join(line for line in TABLE.read_text("utf-8").splitlines(True) if line[0] == "#")
    kept: Mapping[str, Option] = {f"{o.option} {o.since}": o for o in read_table()}
    rows = {key: o for key, o in kept.items() if o.since > release or o.option in found}
    for path, kind in found.items():
        old = kept.get(f"{path} ")
        fresh = Option(option=path, type=kind, since="", until="", source=_TREE)
        rows[f"{path} "] = fresh if old is None else replace(old, type=kind)
    write_table(rows.values(), head)
    return 0


if __name__ == "__main__":
    sys.exit(main())
