"""Coverage of standards and requirements: which clause has which controls, or why it has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from pytest_nixos.standards.load import Catalogue
from pytest_nixos.standards.model import Control

__all__ = ["COVERED", "Clause", "Coverage", "coverage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One clause of a standard.

    :param detail: number, level, category or subject, as the standard has it.
    :param reason: why no control judges it, where none does.
    """

    name: str
    detail: str
    reason: str
    controls: tuple[Control, ...]

    @property
    def judged(self) -> bool:
        """Whether a control judges it by machine."""
        return any(control.manual is None for control in self.controls)

    @property
    def settled(self) -> bool:
        """Whether a control judges it, or there is a written reason why none does."""
        return bool(self.controls) or bool(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """All clauses of one standard."""

    standard: str
    clauses: tuple[Clause, ...]

    @property
    def judged(self) -> int:
        """Number of clauses that a control judges by machine."""
        return sum(clause.judged for clause in self.clauses)


@dataclass(frozen=True, slots=True)
class _Table:
    file: str
    name: str
    details: tuple[str, ...]
    reason: str = "reason without control"


#: Standards of which every clause is listed, with the table that lists them.
COVERED: Mapping[str, _Table] = {
    "stig": _Table("stig.tsv", "rule", ("number", "category")),
    "anssi": _Table("anssi.tsv", "recommendation", ("level",)),
    "hipaa": _Table("hipaa.tsv", "paragraph", ("subject",)),
    "requirement": _Table("requirements.tsv", "requirement", ("text",)),
}


def coverage(standard: str, catalogue: Catalogue) -> Coverage:
    """Return what of `standard`, a key of :data:`COVERED`, is judged by which controls."""
    table = COVERED[standard]
    controls = _by_clause(standard, catalogue)
    clauses = tuple(
        Clause(
            name=row[table.name],
            detail=", ".join(row[key] for key in table.details),
            reason=row.get(table.reason, ""),
            controls=tuple(controls.get(row[table.name], ())),
        )
        for row in _rows(table.file)
    )
    return Coverage(standard=standard, clauses=clauses)


def _by_clause(standard: str, controls: Iterable[Control]) -> Mapping[str, Sequence[Control]]:
    found: dict[str, list[Control]] = {}
    for control in controls:
        for clause in control.references.get(standard, ()):
            found.setdefault(clause, []).append(control)
    return found


def _rows(name: str) -> list[dict[str, str]]:
    head, *lines = _text(name).splitlines()
    keys = head.split("\t")
    # A row without its last cells is a row whose last cells are empty.
    return [dict(zip(keys, [*line.split("\t"), *[""] * len(keys)], strict=False)) for line in lines]


def _text(name: str) -> str:
    return files("pytest_nixos.standards").joinpath(f"data/{name}").read_text(encoding="utf-8")
