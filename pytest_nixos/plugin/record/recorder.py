"""The plugin that keeps findings, in the controlling process: ledger, report files, terminal summary."""

from __future__ import annotations

import os

import pytest

from pytest_nixos.local.text import printable
from pytest_nixos.plugin.options import Settings
from pytest_nixos.plugin.record.finding import ERROR_MARK
from pytest_nixos.plugin.record.maker import finding_of
from pytest_nixos.plugin.record.report_files import ReportFiles
from pytest_nixos.plugin.record.run_record import RunRecord, ledger_directory
from pytest_nixos.plugin.session import HostEntry
from pytest_nixos.plugin.stash import SESSION
from pytest_nixos.report.terminal import summary_lines
from pytest_nixos.report.upgrade import upgrade_lines

__all__ = ["Recorder"]


class Recorder:
    """Keeps each finding as it comes, and at the end writes and shows them.

    :raises SettingsError: if a report format is not known, or a report file cannot be written.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._record = RunRecord()
        self._reports = ReportFiles.prepare(config, settings)

    def pytest_sessionstart(self) -> None:
        """Open the ledger."""
        self._record.open_ledger(ledger_directory(os.environ))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a finding as soon as it is known."""
        finding = finding_of(report)
        if finding is not None:
            self._record.add(finding)
            self._config.hook.pytest_nixos_finding(config=self._config, finding=finding)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show a machine that went away in the middle of a test as an error, not as a violated control."""
        if getattr(report, ERROR_MARK, False) and report.when == "call":
            return "error", "E", "ERROR"
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports; a run without one that was asked for is no success."""
        nixos = self._config.stash.get(SESSION, None)
        if nixos is None:
            return
        self._record.close()
        self._reports.write(self._record.findings, self._record.facts(nixos))
        if self._reports.failed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show counts by severity, the prioritised plan, and where the evidence lies."""
        session = self._config.stash.get(SESSION, None)
        if session is None:
            return
        findings = self._record.findings
        if findings:
            terminalreporter.section("NixOS findings")
            for line in summary_lines(findings, fail_on=self._settings.fail_on):
                terminalreporter.write_line(line)
            terminalreporter.write_line("")
            for notice in self._record.waiver_notices(session):
                terminalreporter.write_line(printable(notice))
            for entry in session.tested:
                terminalreporter.write_line(_entry_line(entry))
            for host, difference in self._record.upgrades(session).items():
                terminalreporter.write_line("")
                for line in upgrade_lines(host, difference):
                    terminalreporter.write_line(line)
        for line in self._reports.lines:
            terminalreporter.write_line(line)
        if findings and self._record.ledger is not None:
            terminalreporter.write_line(f"ledger: {self._record.ledger.path}")


def _entry_line(entry: HostEntry) -> str:
    phases = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in entry.phases_s.items())
    changed = len(entry.config.changed) if entry.config is not None else 0
    note = (
        f"; {changed} options differ from the host as declared (see the report)" if changed else ""
    )
    return f"{printable(entry.key)}: {phases}{note}"
