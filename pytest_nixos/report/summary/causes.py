"""Which finding explains which: the causes first, and what is only their echo behind them.

A finding blames subjects ("unit:ollama.service is broken") and rests on subjects ("the API answers"
needs that unit). A failed finding that rests on what another one blames is that one's echo, and what rests on
what an echo blames goes back to the same cause; so is one that blames nothing that an earlier cause does not blame. A machine that did not boot, or died,
explains everything that could not be judged. What needs the internet fails nothing: the finding that
names such units explains those that were not judged for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import msgspec

from pytest_nixos.findings import Finding, Outcome, Severity
from pytest_nixos.subject import MACHINE, Subject, SubjectKind

__all__ = ["Cause", "causes_of", "explained"]

_LAYERS = list(SubjectKind)


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One failed finding that nothing explains, and what it explains.

    :param echoes: findings of the same host that it explains, worst first.
    """

    finding: Finding
    echoes: tuple[Finding, ...]

    @property
    def severity(self) -> Severity:
        """Return the severity of the worst of it: what a cause breaks matters as much as its own
        control.
        """
        judged = [echo.severity for echo in self.echoes if echo.outcome is Outcome.FAILED]
        return max([self.finding.severity, *judged])


def explained(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Link findings to their causes, and order them as reports do.

    First what failed, the worst first, a cause being as bad as the worst that it explains; then the
    echoes; then the rest.
    """
    by_host = sorted(findings, key=lambda f: f.host)
    linked = [
        finding
        for _, of_host in groupby(by_host, key=lambda f: f.host)
        for finding in _linked(tuple(of_host))
    ]
    worst = {
        (cause.finding.host, cause.finding.control): cause.severity for cause in causes_of(linked)
    }

    def rank(finding: Finding) -> tuple[object, ...]:
        severity = finding.severity
        if finding.failed and not finding.caused_by:
            severity = worst.get((finding.host, finding.control), severity)
        return (
            not finding.failed,
            bool(finding.caused_by),
            -severity,
            -len(finding.explains),
            -finding.severity,
            finding.host,
            finding.control,
            finding.node_id,
        )

    return tuple(sorted(linked, key=rank))


def causes_of(findings: Sequence[Finding]) -> tuple[Cause, ...]:
    """Return the causes among findings that :func:`explained` linked, in the order of
    `findings`.
    """
    echoes: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        for control in finding.caused_by:
            echoes.setdefault((finding.host, control), []).append(finding)
    return tuple(
        Cause(finding=f, echoes=tuple(echoes.get((f.host, f.control), ())))
        for f in findings
        if f.outcome is Outcome.FAILED and not f.caused_by
    )


def _linked(findings: tuple[Finding, ...]) -> list[Finding]:
    """Set `caused_by` and `explains` of the findings of one host."""
    accepted: list[Finding] = []
    echoed: dict[Subject, tuple[str, ...]] = {}
    caused_by: dict[int, tuple[str, ...]] = {}
    candidates = [f for f in findings if f.outcome is Outcome.FAILED and f.blames]
    for candidate in sorted(candidates, key=_precedence):
        why = _explaining(candidate.rests_on, accepted, all_of=False) or _explaining(
            candidate.blames, accepted, all_of=True
        )
        if why:
            caused_by[id(candidate)] = why
            echoed |= {subject: why for subject in candidate.blames if subject not in echoed}
        else:
            accepted.append(candidate)
    for finding in findings:
        if finding.failed and not finding.blames:
            why = _explaining(finding.rests_on, accepted, all_of=False) or next(
                (echoed[subject] for subject in finding.rests_on if subject in echoed), ()
            )
            # What the machine's own failure kept from being judged, where no control says that it
            # failed.
            caused_by[id(finding)] = why or (
                (MACHINE.kind.value,)
                if finding.outcome is Outcome.ERROR and MACHINE in finding.rests_on
                else ()
            )
    # What was not judged for want of the internet goes back to the finding that names the units.
    offline = [f for f in findings if f.outcome is Outcome.NOT_APPLICABLE and f.blames]
    for finding in findings:
        needs = [s for s in finding.rests_on if s.kind is SubjectKind.INTERNET]
        if finding.outcome is Outcome.NOT_APPLICABLE and needs and finding not in offline:
            caused_by[id(finding)] = _explaining(needs, offline, all_of=False)
    causes = {id(cause) for cause in (*accepted, *offline)}

    def explains(cause: Finding) -> tuple[str, ...]:
        echoes = (
            f for f in findings if f is not cause and cause.control in caused_by.get(id(f), ())
        )
        return tuple(dict.fromkeys(echo.control for echo in echoes))

    return [
        _with_links(
            finding,
            caused_by=caused_by.get(id(finding), ()),
            explains=explains(finding) if id(finding) in causes else (),
        )
        for finding in findings
    ]


def _with_links(
    finding: Finding, *, caused_by: tuple[str, ...], explains: tuple[str, ...]
) -> Finding:
    if (finding.caused_by, finding.explains) == (caused_by, explains):
        return finding
    return replace(finding, caused_by=caused_by, explains=explains)


def _precedence(finding: Finding) -> tuple[object, ...]:
    """Return where a finding stands among those that blame: what others rest on comes first."""
    layer = min(_LAYERS.index(subject.kind) for subject in finding.blames)
    return layer, bool(finding.rests_on), -finding.severity, finding.control, finding.node_id


def _explaining(
    subjects: Sequence[Subject], causes: Sequence[Finding], *, all_of: bool
) -> tuple[str, ...]:
    """Return the controls of the causes that blame `subjects`.

    :param all_of: whether every one of them has to be blamed, or one will do.
    """
    found = [next((c for c in causes if subject in c.blames), None) for subject in subjects]
    blamed = [cause.control for cause in found if cause is not None]
    if not blamed or (all_of and len(blamed) < len(found)):
        return ()
    return tuple(dict.fromkeys(blamed))
