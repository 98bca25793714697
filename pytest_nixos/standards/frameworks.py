"""Frameworks whose clauses are about organisations and not about settings: ISO/IEC 27001, NIST SP
800-53, CIS Controls, PCI DSS, NIS2, DORA.

The controls of the catalogue say which rule of a standard they are. Of a framework it is the other
way round: a file names, clause by clause, the controls whose verdicts *give evidence for* it, or
why there are none. No verdict about a host fulfils such a clause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from msgspec.structs import replace

from pytest_nixos.standards.bundled import read_bundled
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.format import FrameworkFile

__all__ = ["frameworks", "with_evidence"]

#: Controls by id or suite, each with the standards and clauses that it gives evidence for.
_Evidence = Mapping[str, Sequence[tuple[str, str]]]


@cache
def frameworks() -> Mapping[str, FrameworkFile]:
    """Return the bundled frameworks by the key of their standard."""
    return {file.standard: file for _, file in read_bundled("frameworks", FrameworkFile)}


def with_evidence(controls: Iterable[Control]) -> tuple[Control, ...]:
    """Return bundled controls, each with references to the clauses it gives evidence for."""
    by_id, by_suite = _evidence(frameworks().values())
    return tuple(
        _referring(control, (*by_id.get(control.id, ()), *by_suite.get(control.suite, ())))
        for control in controls
    )


def _referring(control: Control, evidence: Sequence[tuple[str, str]]) -> Control:
    if not evidence:
        return control
    references = dict(control.references)
    for standard, clause in evidence:
        known = references.get(standard, ())
        if clause not in known:
            references[standard] = (*known, clause)
    return replace(control, references=references)


def _evidence(files: Iterable[FrameworkFile]) -> tuple[_Evidence, _Evidence]:
    by_id: dict[str, list[tuple[str, str]]] = {}
    by_suite: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        for clause in file.clause:
            for control_id in clause.controls:
                by_id.setdefault(control_id, []).append((file.standard, clause.number))
            for suite in clause.suites:
                by_suite.setdefault(suite, []).append((file.standard, clause.number))
    return by_id, by_suite
