"""From pytest's report of an item to the finding of its control, and back to what pytest shows."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import date

import msgspec
import pytest

from pytest_nixos.errors import NixosError
from pytest_nixos.findings import Evidence, Finding, JudgedOn, Outcome
from pytest_nixos.local.pace import PressureMark
from pytest_nixos.local.text import printable
from pytest_nixos.nix.command.metadata import subfolder
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.config.places import Places
from pytest_nixos.nix.where import Whereabouts
from pytest_nixos.place import Place
from pytest_nixos.plugin.not_applicable import NOT_APPLICABLE
from pytest_nixos.plugin.record.journal import journal_of_span
from pytest_nixos.plugin.record.replay import recorded_places
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import EVIDENCE
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.by_hand import by_hand
from pytest_nixos.standards.judging.decides import places_of
from pytest_nixos.standards.judging.remedy import remedy_text
from pytest_nixos.standards.judging.rests_on import rests_on_units
from pytest_nixos.standards.judging.why import page_of, why
from pytest_nixos.standards.waivers import apply_waiver, find_waiver
from pytest_nixos.subject import MACHINE, Subject, SubjectKind

__all__ = ["BEFORE_WAIVER", "ERROR_MARK", "NOT_JUDGED_MARK", "make_finding", "properties", "show"]

# Attributes of a report, which cross xdist: its failure is the machine's or ours, not the
# control's; and it only repeats that a host has failed before.
ERROR_MARK = "nixos_error"
NOT_JUDGED_MARK = "nixos_not_judged"
# Outcome and reason of a finding as they were before a waiver spoke.
BEFORE_WAIVER = "nixos_before_waiver"


def make_finding(
    item: pytest.Item,
    report: pytest.TestReport,
    control: Control,
    key: str,
    session: NixosSession,
    *,
    began: PressureMark,
) -> Finding:
    """Make the finding of an item that `report` decides, waivers applied.

    :param key: of the item's host.
    :param began: this machine's counters when the item began; read again only for what is shown.
    """
    evidence = item.stash.get(EVIDENCE, Evidence()).written
    outcome, reason = _outcome(report)
    waiver = find_waiver(session.waivers, control.id, key)
    if waiver is not None:
        setattr(report, BEFORE_WAIVER, [outcome.value, printable(reason)])
        outcome, reason = apply_waiver(waiver, outcome, reason, today=date.today())  # noqa: DTZ011 - a waiver ends on the reader's own calendar day
    journal = journal_of_span(item, control) if outcome is Outcome.FAILED else ()
    rests_on = list(dict.fromkeys([*evidence.rests_on, *_marked(item), *rests_on_units(control)]))
    if outcome is Outcome.ERROR and session.entry(key).failure is not None:
        rests_on.append(MACHINE)
    # What was never judged has nothing to mend.
    judged = outcome is not Outcome.ERROR
    violated = outcome in (Outcome.FAILED, Outcome.WAIVED)
    blames = (*evidence.blames, *control.blames) if violated else ()
    remedy = _remedy(control, session.entry(key).config, evidence, reason) if judged else ""
    places = (
        _places(
            control,
            session,
            key,
            remedy=remedy,
            reason=reason,
            evidence=evidence,
            blames=blames,
            of_recording=recorded_places(item, control, session, key),
        )
        if violated
        else ()
    )
    host = session.entry(key).config
    return Finding(
        control=control.id,
        title=control.title,
        suite=control.suite,
        host=key,
        backend=session.backend_name(key).value if session.entry(key).config else "",
        severity=control.severity,
        outcome=outcome,
        judged_on=_judged_on(control, evidence, outcome),
        reason=printable(reason),
        threat=control.threat if judged else "",
        remedy=remedy,
        expected=evidence.expected,
        observed=evidence.observed,
        attachments=evidence.attachments,
        references=control.references,
        journal=tuple(msgspec.structs.asdict(entry) for entry in journal),
        node_id=report.nodeid,
        duration_s=report.duration,
        rests_on=tuple(rests_on),
        blames=blames
        if violated
        # What was not judged blames nothing but the internet that is not there.
        else tuple(s for s in evidence.blames if s.kind is SubjectKind.INTERNET),
        places=places,
        why=printable(why(control, evidence, reason=reason, places=places, blames=blames))
        if violated
        else "",
        by_hand=by_hand(control, host, blames) if violated and host is not None else "",
        page=page_of(control),
        pressure=began.until(PressureMark.now()).to_json()
        if outcome in (Outcome.FAILED, Outcome.ERROR)
        else {},
    )


def _judged_on(control: Control, evidence: Evidence, outcome: Outcome) -> str:
    """Return whose word the outcome rests on; what nobody has said is taken for the guest's own."""
    if outcome in (Outcome.ERROR, Outcome.NOT_APPLICABLE):
        return JudgedOn.NOTHING.value
    said = evidence.judged_on or control.judged_on
    return said if said in {where.value for where in JudgedOn} else JudgedOn.MACHINE.value


def _places(
    control: Control,
    session: NixosSession,
    key: str,
    *,
    remedy: str,
    reason: str,
    evidence: Evidence,
    blames: Sequence[Subject],
    of_recording: tuple[Place, ...],
) -> tuple[Place, ...]:
    """Return what decides the control on this host; nothing where the flake cannot be read.

    :param of_recording: in a replay, which has no flake, what was found when it was recorded.
    """
    host = session.entry(key).config
    if session.recording is not None and host is not None:
        return of_recording
    if host is None or not host.where:
        return ()
    flake = session.flakes.of(host.ref.flake)
    with contextlib.suppress(NixosError):
        whereabouts = Whereabouts(
            host,
            trees=Places.of(flake.metadata),
            root=flake.root,
            folder=subfolder(flake.metadata),
        )
        return places_of(
            control,
            whereabouts,
            remedy=remedy,
            reason=reason,
            observed=evidence.observed,
            blames=blames,
        )
    return ()


def _remedy(control: Control, host: HostConfig | None, evidence: Evidence, reason: str) -> str:
    """Return the host's own remedy; without a host that evaluates, the newest text of the
    catalogue.
    """
    return evidence.remedy or remedy_text(
        control,
        host,
        observed=evidence.observed,
        reason=reason,
        today=date.today(),  # noqa: DTZ011 - a release ends on the reader's own calendar day
    )


def show(report: pytest.TestReport, finding: Finding, *, below: bool) -> None:
    """Let pytest show what the finding says: a waived or minor failure as xfail, a stale waiver
    as failure.

    :param below: whether the finding is not severe enough to fail the run.
    """
    if finding.outcome is Outcome.WAIVED and report.failed:
        report.outcome, report.wasxfail = "skipped", finding.reason
    elif finding.outcome is Outcome.FAILED and report.passed:
        report.outcome, report.longrepr = "failed", finding.reason
    elif finding.outcome is Outcome.NOT_APPLICABLE and report.failed:
        path, line, _ = report.location
        report.outcome = "skipped"
        report.longrepr = (path, (line or 0) + 1, f"Skipped: {NOT_APPLICABLE}{finding.reason}")
    elif finding.outcome is Outcome.FAILED and below:
        report.outcome = "skipped"
        report.wasxfail = f"{finding.severity.name} is below --nixos-fail-on: {finding.reason}"


def properties(finding: Finding) -> list[tuple[str, object]]:
    """Return what JUnit shows of a finding."""
    return [
        ("nixos_control", finding.control),
        ("nixos_severity", finding.severity.name),
        ("nixos_host", printable(finding.host)),
        ("nixos_outcome", finding.outcome.value),
        ("nixos_judged_on", finding.judged_on),
        *(("nixos_rests_on", printable(str(subject))) for subject in finding.rests_on),
        *(("nixos_blames", printable(str(subject))) for subject in finding.blames),
    ]


def _marked(item: pytest.Item) -> list[Subject]:
    """Return what the item's ``nixos_rests_on`` markers name."""
    return [Subject.parse(word) for m in item.iter_markers("nixos_rests_on") for word in m.args]


def _outcome(report: pytest.TestReport) -> tuple[Outcome, str]:
    if report.passed:
        return Outcome.PASSED, ""
    if report.skipped:
        reason = _skip_reason(report)
        waived = hasattr(report, "wasxfail")
        return (Outcome.WAIVED, report.wasxfail) if waived else (Outcome.NOT_APPLICABLE, reason)
    lines = [line for line in _crash_message(report).splitlines() if line.strip()]
    reason = lines[0].removeprefix("AssertionError: ").removeprefix("Failed: ") if lines else ""
    error = report.when == "setup" or getattr(report, ERROR_MARK, False)
    return (Outcome.ERROR if error else Outcome.FAILED), reason


def _skip_reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ").removeprefix(NOT_APPLICABLE)


def _crash_message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)
