"""Coverage of standards and requirements: which clause has which controls, or why it has none."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.format import FrameworkFile, given
from pytest_nixos.standards.frameworks import frameworks
from pytest_nixos.standards.load import Catalogue

__all__ = ["COVERED", "Clause", "Coverage", "clause_of", "coverage"]


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
    """All clauses of one standard.

    :param source: which text it is, and whose judgement the mapping, where that needs saying.
    """

    standard: str
    clauses: tuple[Clause, ...]
    source: str = ""

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


#: Standards of which a table lists every clause; their controls name the clauses.
_TABLES: Mapping[str, _Table] = {
    "stig": _Table("stig.tsv", "rule", ("number", "category")),
    "anssi": _Table("anssi.tsv", "recommendation", ("level",)),
    "hipaa": _Table("hipaa.tsv", "paragraph", ("subject",)),
    "requirement": _Table("requirements.tsv", "requirement", ("text",)),
}

#: Standards of which every clause is listed: by a table, or by a framework's file.
COVERED: Sequence[str] = (
    *_TABLES,
    *("nist", "cis-controls", "iso27001", "pci-dss", "nis2", "dora"),
)


def coverage(standard: str, catalogue: Catalogue) -> Coverage:
    """Return what of `standard`, one of :data:`COVERED`, is judged by which controls."""
    controls = _by_clause(standard, catalogue)
    if standard in _TABLES:
        return Coverage(standard=standard, clauses=_of_table(_TABLES[standard], controls))
    file = frameworks()[standard]
    return Coverage(
        standard=standard,
        clauses=_of_framework(file, controls),
        source=f"{file.source} {file.basis.strip()}",
    )


def clause_of(standard: str, reference: str) -> str:
    """Return the listed clause that a reference is a part of: ``AU-3`` of ``AU-3 a``."""
    file = frameworks().get(standard)
    pattern = given(file.parts_of, "") if file else ""
    found = re.match(pattern, reference) if pattern else None
    return found.group() if found else reference


def _of_table(table: _Table, controls: Mapping[str, Sequence[Control]]) -> tuple[Clause, ...]:
    return tuple(
        Clause(
            name=row[table.name],
            detail=", ".join(row[key] for key in table.details),
            reason=row.get(table.reason, ""),
            controls=tuple(controls.get(row[table.name], ())),
        )
        for row in _rows(table.file)
    )


def _of_framework(
    file: FrameworkFile, controls: Mapping[str, Sequence[Control]]
) -> tuple[Clause, ...]:
    mapped = {
        entry.number: Clause(
            name=entry.number,
            detail=f"{entry.about} ({entry.but})" if given(entry.but, "") else entry.about,
            reason="",
            controls=tuple(controls.get(entry.number, ())),
        )
        for entry in file.clause
    }
    unmapped = {
        number: Clause(name=number, detail="", reason=entry.reason, controls=())
        for entry in file.unmapped
        for number in entry.clauses
    }
    both = {**mapped, **unmapped}
    return tuple(both[number] for number in sorted(both, key=_in_order))


def _in_order(number: str) -> tuple[tuple[int, int, str], ...]:
    """Return what sorts ``9(4)(b)`` before ``10(1)``, and ``AC-2`` before ``AC-10``."""
    parts = re.findall(r"[0-9]+|[A-Za-z]+", number)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)


def _by_clause(standard: str, controls: Iterable[Control]) -> Mapping[str, Sequence[Control]]:
    found: dict[str, list[Control]] = {}
    for control in controls:
        clauses = (clause_of(standard, one) for one in control.references.get(standard, ()))
        for clause in dict.fromkeys(clauses):
            found.setdefault(clause, []).append(control)
    return found


def _rows(name: str) -> list[dict[str, str]]:
    head, *lines = _text(name).splitlines()
    keys = head.split("\t")
    # A row without its last cells is a row whose last cells are empty.
    return [dict(zip(keys, [*line.split("\t"), *[""] * len(keys)], strict=False)) for line in lines]


def _text(name: str) -> str:
    return files("pytest_nixos.standards").joinpath(f"data/{name}").read_text(encoding="utf-8")
