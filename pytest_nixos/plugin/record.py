"""Turns pytest's reports into findings, keeps them in the ledger, and writes the reports."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Generator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos import __version__
from pytest_nixos.errors import (
    BrokenMachineError,
    CommandTimeout,
    NixosError,
    SettingsError,
    TransportError,
)
from pytest_nixos.findings import Evidence, Finding, Ledger, Outcome
from pytest_nixos.nix.host_config import HostConfig
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.failure_journal import journal_of_span, span_begins
from pytest_nixos.plugin.not_applicable import NOT_APPLICABLE
from pytest_nixos.plugin.options import Settings
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.plugin.stash import EVIDENCE, SESSION
from pytest_nixos.report import ReportWriter, RunFacts
from pytest_nixos.report.html_report import write_html
from pytest_nixos.report.json_report import write_json
from pytest_nixos.report.sarif_report import write_sarif
from pytest_nixos.report.terminal import failure_lines, printable, summary_lines
from pytest_nixos.report.upgrade import compare_stages, upgrade_lines
from pytest_nixos.standards.model import Control
from pytest_nixos.standards.remedy import remedy_text
from pytest_nixos.standards.waivers import apply_waiver, find_waiver, idle_waivers

__all__ = ["LEDGERS_KEPT", "Recorder"]

LEDGERS_KEPT = 20
_TRACEBACK_VERBOSITY = 2
_WORKER_OUTPUT = "nixos_phases"
_WORKER_STATES = "nixos_states"
# Attributes of a report: pytest serialises them, so they cross xdist.
_FINDING = "nixos_finding"
_ERROR_MARK = "nixos_error"


class Recorder:
    """Hooks around each report; under xdist workers make findings and the controlling process keeps them.

    :raises SettingsError: if a report format is not known.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._config_is_worker = hasattr(config, "workerinput")
        self._writers = _writers(config, settings)
        self._findings: dict[tuple[str, str, str], Finding] = {}
        self._ledger: Ledger | None = None
        self._started_at = datetime.now(UTC)
        self._started_s = time.monotonic()
        self._written: list[Path] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note when the item began: the journal of a failure starts there."""
        span_begins(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach a finding to the report that decides an item, and let waivers and --nixos-fail-on speak."""
        report = yield
        session = item.config.stash[SESSION]
        key = collect.host_key_of(item)
        if key is None:
            return report
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, NixosError) and report.failed:
            _note_error(report, error, session.entry(key))
        control = collect.control_of(item, session)
        decides = report.when == "call" or (report.when == "setup" and not report.passed)
        if control is not None and decides:
            self._judge(item, report, control, key, session)
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a finding as soon as it is known."""
        data = getattr(report, _FINDING, None)
        if data is None or self._config_is_worker:
            return
        finding = Finding.from_json(data)
        self._findings[finding.control, finding.host, finding.node_id] = finding
        if self._ledger is not None:
            self._ledger.append(finding)
        self._config.hook.pytest_nixos_finding(config=self._config, finding=finding)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show a machine that went away in the middle of a test as an error, not as a violated control."""
        if getattr(report, _ERROR_MARK, False) and report.when == "call":
            return "error", "E", "ERROR"
        return None

    def pytest_sessionstart(self) -> None:
        """Open the ledger."""
        if not self._config_is_worker:
            directory = ledger_directory(os.environ)
            _drop_old_ledgers(directory)
            name = f"{self._started_at:%Y%m%dT%H%M%S}-{os.getpid()}.jsonl"
            self._ledger = Ledger(directory / name)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write the reports; in a worker, send home how long its machines took."""
        session = self._config.stash.get(SESSION, None)
        if session is None:
            return
        if self._config_is_worker:
            output = self._config.workeroutput  # type: ignore[attr-defined]
            output[_WORKER_OUTPUT] = {e.key: e.phases_s for e in session.entries}
            output[_WORKER_STATES] = {e.key: e.state for e in session.entries if e.state}
            return
        if self._ledger is not None:
            self._ledger.close()
        facts = self._run_facts(session)
        for target in self._settings.reports:
            target.path.parent.mkdir(parents=True, exist_ok=True)
            text = self._writers[target.format](list(self._findings.values()), facts)
            target.path.write_text(text, encoding="utf-8")
            self._written.append(target.path)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Learn from a worker how long its machines took."""
        session = self._config.stash.get(SESSION, None)
        if session is None:
            return
        for key, phases in getattr(node, "workeroutput", {}).get(_WORKER_OUTPUT, {}).items():
            session.entry(key).phases_s |= phases
        for key, state in getattr(node, "workeroutput", {}).get(_WORKER_STATES, {}).items():
            session.entry(key).state = state

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show counts by severity, the prioritised plan, and where the evidence lies."""
        session = self._config.stash.get(SESSION, None)
        if session is None or not self._findings:
            return
        terminalreporter.section("NixOS findings")
        findings = list(self._findings.values())
        for line in summary_lines(findings, fail_on=self._settings.fail_on):
            terminalreporter.write_line(line)
        terminalreporter.write_line("")
        for notice in self._waiver_notices(session):
            terminalreporter.write_line(printable(notice))
        for entry in session.entries:
            terminalreporter.write_line(_entry_line(entry))
        for host, difference in self._upgrades(session).items():
            terminalreporter.write_line("")
            for line in upgrade_lines(host, difference):
                terminalreporter.write_line(line)
        for path in self._written:
            terminalreporter.write_line(f"report: {path}")
        if self._ledger is not None:
            terminalreporter.write_line(f"ledger: {self._ledger.path}")

    def _judge(
        self,
        item: pytest.Item,
        report: pytest.TestReport,
        control: Control,
        key: str,
        session: NixosSession,
    ) -> None:
        evidence = item.stash.get(EVIDENCE, Evidence())
        outcome, reason = _outcome(report)
        waiver = find_waiver(session.waivers, control.id, key)
        if waiver is not None:
            outcome, reason = apply_waiver(waiver, outcome, reason, today=date.today())  # noqa: DTZ011 - a waiver ends on the reader's own calendar day
        journal = journal_of_span(item, control) if outcome is Outcome.FAILED else ()
        finding = Finding(
            control=control.id,
            title=control.title,
            suite=control.suite,
            host=key,
            backend=session.backend_name(key).value if session.entry(key).config else "",
            severity=control.severity,
            outcome=outcome,
            judged_on=evidence.judged_on,
            reason=printable(reason),
            threat=control.threat,
            remedy=_remedy(control, session.entry(key).config, evidence, outcome, reason),
            expected=evidence.expected,
            observed=evidence.observed,
            attachments=dict(evidence.attachments),
            references=control.references,
            journal=tuple(dataclasses.asdict(entry) for entry in journal),
            node_id=report.nodeid,
            duration_s=report.duration,
        )
        setattr(report, _FINDING, finding.to_json())
        if outcome is Outcome.FAILED and self._config.get_verbosity() < _TRACEBACK_VERBOSITY:
            report.longrepr = "\n".join(failure_lines(finding))
        _show(report, finding, below=finding.severity < self._settings.fail_on)
        _add_properties(item, finding)

    def _upgrades(self, session: NixosSession) -> dict[str, dict[str, Any]]:
        found = {}
        for subject in dict.fromkeys(e.subject for e in session.entries if e.state is not None):
            stages = [e for e in session.entries if e.subject == subject and e.state is not None]
            findings = {
                e.stage: [f for f in self._findings.values() if f.host == e.key] for e in stages
            }
            states = {e.stage: e.state for e in stages if e.state is not None}
            found[subject] = compare_stages(states, findings)
        return found

    def _run_facts(self, session: NixosSession) -> RunFacts:
        return RunFacts(
            plugin_version=__version__,
            started_at=self._started_at.isoformat(timespec="seconds"),
            duration_s=round(time.monotonic() - self._started_s, 3),
            hosts={entry.key: _host_facts(entry, session) for entry in session.entries},
            fail_on=self._settings.fail_on.name,
            waiver_notices=self._waiver_notices(session),
            upgrades=self._upgrades(session),
        )

    def _waiver_notices(self, session: NixosSession) -> tuple[str, ...]:
        judged_last = sorted(
            self._findings.values(), key=lambda f: f.outcome is not Outcome.NOT_APPLICABLE
        )
        return idle_waivers(
            session.waivers,
            judged={(f.control, f.host): (f.outcome, f.reason) for f in judged_last},
            hosts=session.host_keys,
            selected={control.id for control in session.controls},
            aliases={c.id: c.judged_as for c in session.catalogue if c.judged_as is not None},
        )


def _remedy(
    control: Control, host: HostConfig | None, evidence: Evidence, outcome: Outcome, reason: str
) -> str:
    """Return the host's own remedy where it is needed."""
    if outcome is not Outcome.FAILED:
        host = None
    return remedy_text(
        control,
        host,
        observed=evidence.observed,
        reason=reason,
        today=date.today(),  # noqa: DTZ011 - a release ends on the reader's own calendar day
    )


def ledger_directory(environ: Mapping[str, str]) -> Path:
    """Return where ledgers lie: ``$XDG_STATE_HOME/pytest-nixos/ledgers``, see the XDG base directories."""
    base = environ.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return root / "pytest-nixos" / "ledgers"


def _drop_old_ledgers(directory: Path) -> None:
    for path in sorted(directory.glob("*.jsonl"))[: -LEDGERS_KEPT + 1]:
        path.unlink(missing_ok=True)


def _writers(config: pytest.Config, settings: Settings) -> Mapping[str, ReportWriter]:
    writers: dict[str, ReportWriter] = {
        "json": write_json,
        "html": write_html,
        "sarif": write_sarif,
    }
    for offered in config.hook.pytest_nixos_report_writers(config=config):
        writers |= offered
    for target in settings.reports:
        if target.format not in writers:
            raise SettingsError(
                f"--nixos-report {target.format}:{target.path}: no such format",
                remedy=f"known formats: {', '.join(sorted(writers))}",
            )
    return writers


def _note_error(report: pytest.TestReport, error: NixosError, entry: HostEntry) -> None:
    """Show an error of ours without a traceback; a machine that went away fails the host's later tests fast."""
    report.longrepr = str(error)
    setattr(report, _ERROR_MARK, True)
    gone = isinstance(error, TransportError) and not isinstance(error, CommandTimeout)
    if gone or isinstance(error, BrokenMachineError):
        entry.fail(error)
        entry.shown = True


def _outcome(report: pytest.TestReport) -> tuple[Outcome, str]:
    if report.passed:
        return Outcome.PASSED, ""
    if report.skipped:
        reason = _skip_reason(report)
        waived = hasattr(report, "wasxfail")
        return (Outcome.WAIVED, report.wasxfail) if waived else (Outcome.NOT_APPLICABLE, reason)
    lines = [line for line in _crash_message(report).splitlines() if line.strip()]
    reason = lines[0].removeprefix("AssertionError: ").removeprefix("Failed: ") if lines else ""
    error = report.when == "setup" or getattr(report, _ERROR_MARK, False)
    return (Outcome.ERROR if error else Outcome.FAILED), reason


def _skip_reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ").removeprefix(NOT_APPLICABLE)


def _crash_message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)


def _show(report: pytest.TestReport, finding: Finding, *, below: bool) -> None:
    """Let pytest show what the finding says: a waived or minor failure as xfail, a stale waiver as failure."""
    if finding.outcome is Outcome.WAIVED and report.failed:
        report.outcome, report.wasxfail = "skipped", finding.reason
    elif finding.outcome is Outcome.FAILED and report.passed:
        report.outcome, report.longrepr = "failed", finding.reason
    elif finding.outcome is Outcome.FAILED and below:
        report.outcome = "skipped"
        report.wasxfail = f"{finding.severity.name} is below --nixos-fail-on: {finding.reason}"


def _add_properties(item: pytest.Item, finding: Finding) -> None:
    """Give JUnit what it shows; properties cross xdist and are written when the item is torn down."""
    item.user_properties += [
        ("nixos_control", finding.control),
        ("nixos_severity", finding.severity.name),
        ("nixos_host", finding.host),
        ("nixos_outcome", finding.outcome.value),
    ]


def _host_facts(entry: HostEntry, session: NixosSession) -> Mapping[str, object]:
    config = entry.config
    facts: dict[str, object] = {
        "ref": str(entry.ref),
        "phases_s": {name: round(seconds, 3) for name, seconds in entry.phases_s.items()},
        "failure": None if entry.failure is None else str(entry.failure),
    }
    if config is not None:
        facts |= {
            "backend": session.backend_name(entry.key).value,
            "release": config.release,
            "version": config.version,
            "warnings": list(config.warnings),
            "changed_options": {path: list(pair) for path, pair in config.changed.items()},
        }
    return facts


def _entry_line(entry: HostEntry) -> str:
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in entry.phases_s.items())
    changed = len(entry.config.changed) if entry.config is not None else 0
    note = (
        f"; {changed} options differ from the host as declared (see the report)" if changed else ""
    )
    return f"{printable(entry.key)}: {phases}{note}"
