"""Findings as matrices: host by suite, and host by standard, counted in clauses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_nixos.findings import Finding, Outcome

__all__ = ["Cell", "by_standard", "by_suite"]

_BY_HAND = "judged by hand"


@dataclass(slots=True)
class Cell:
    """How many controls, or clauses, of one host had which outcome.

    :param unjudged: those that could not be judged.
    :param by_hand: those that no machine can judge, or only in part.
    """

    passed: int = 0
    failed: int = 0
    waived: int = 0
    unjudged: int = 0
    inapplicable: int = 0
    by_hand: int = 0

    @property
    def word(self) -> str:
        """The worst of it, as a class of the page."""
        if self.failed:
            return "bad"
        if self.unjudged or self.waived:
            return "open"
        return "good" if self.passed else "idle"

    @property
    def told(self) -> str:
        """All counts in words."""
        counts = (
            (self.passed, "passed"),
            (self.failed, "failed"),
            (self.waived, "waived"),
            (self.unjudged, "not judged"),
            (self.inapplicable, "not applicable"),
            (self.by_hand, "by hand"),
        )
        return ", ".join(f"{count} {word}" for count, word in counts if count)


def by_suite(findings: Sequence[Finding]) -> Mapping[str, Mapping[str, Cell]]:
    """Return a cell for each host and suite."""
    found: dict[str, dict[str, Cell]] = {}
    for finding in findings:
        cell = found.setdefault(finding.host, {}).setdefault(finding.suite, Cell())
        _count(cell, [finding])
    return found


def by_standard(findings: Sequence[Finding]) -> Mapping[str, Mapping[str, Cell]]:
    """Return a cell for each host and standard, which counts clauses: one of several controls has
    failed if one of them has.
    """
    clauses: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        for standard, ids in finding.references.items():
            for clause in ids:
                clauses.setdefault((finding.host, standard, clause), []).append(finding)
    found: dict[str, dict[str, Cell]] = {}
    for (host, standard, _), of_clause in clauses.items():
        _count(found.setdefault(host, {}).setdefault(standard, Cell()), of_clause)
    return found


def _is_left(finding: Finding) -> bool:
    """Whether a part of the clause is left to a person."""
    return finding.outcome is Outcome.NOT_APPLICABLE and finding.reason.startswith(_BY_HAND)


def _count(cell: Cell, findings: Sequence[Finding]) -> None:
    outcomes = Counter(finding.outcome for finding in findings)
    if outcomes[Outcome.FAILED]:
        cell.failed += 1
    elif outcomes[Outcome.ERROR]:
        cell.unjudged += 1
    elif outcomes[Outcome.WAIVED]:
        cell.waived += 1
    elif any(_is_left(finding) for finding in findings):
        cell.by_hand += 1
    elif outcomes[Outcome.PASSED]:
        cell.passed += 1
    else:
        cell.inapplicable += 1
