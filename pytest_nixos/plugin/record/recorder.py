"""The plugin that keeps findings, in the controlling process: ledger, report files, terminal
summary.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Finding
from pytest_nixos.local.dirs import state_directory
from pytest_nixos.local.text import printable, printable_lines
from pytest_nixos.plugin.record.baseline import Baseline
from pytest_nixos.plugin.record.finding import BEFORE_WAIVER, ERROR_MARK, NOT_JUDGED_MARK
from pytest_nixos.plugin.record.junit import add_causes, add_places
from pytest_nixos.plugin.record.maker import finding_of
from pytest_nixos.plugin.record.report_files import ReportFiles
from pytest_nixos.plugin.record.run_record import RunRecord
from pytest_nixos.plugin.record.signature import Signer
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.plugin.stash import SESSION
from pytest_nixos.plugin.workers.workers import Controller
from pytest_nixos.report.comparing.upgrade import upgrade_lines
from pytest_nixos.report.facts import RunFacts
from pytest_nixos.report.summary.changes import change_lines

if TYPE_CHECKING:
    from pytest_nixos.plugin.record.recording_files import RecordingFiles

__all__ = ["Recorder"]

# What pytest's terminal files those under that passed.
_SETUPS_AND_TEARDOWNS = ""


class Recorder:
    """Keeps each finding as it comes, and at the end writes and shows them.

    :param controller: knows which workers died, and what there was to judge.
    :raises SettingsError: if a report format is not known, or a report file cannot be written.
    """

    def __init__(self, config: pytest.Config, settings: Settings, controller: Controller) -> None:
        self._config = config
        self._settings = settings
        self._record = RunRecord()
        self._controller = controller
        self._reports = ReportFiles.prepare(config, settings)
        self._baseline = Baseline.of(settings)
        self._recording = _recording_files(settings)

    def pytest_sessionstart(self) -> None:
        """Open the ledger; a run without one is told and goes on.

        :raises pytest.UsageError: if two reports of this run's hosts go to the same file.
        """
        session = self._config.stash.get(SESSION, None)
        if session is not None:
            try:
                self._reports.check_hosts(session.host_keys)
            except SettingsError as err:
                raise pytest.UsageError(printable_lines(str(err))) from err
        try:
            self._record.open_ledger(state_directory("ledgers"))
        except (OSError, RuntimeError) as err:  # RuntimeError: no home directory can be found
            self._record.no_ledger(err)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a finding as soon as it is known."""
        finding = finding_of(report)
        if finding is not None:
            self._record.add(finding)
            if self._recording is not None:
                self._recording.add(finding, getattr(report, BEFORE_WAIVER, None))
            self._config.hook.pytest_nixos_finding(config=self._config, finding=finding)

    @pytest.hookimpl(wrapper=True, specname="pytest_runtest_logreport")
    def pytest_nixos_forget_silent(
        self, report: pytest.TestReport
    ) -> Generator[None, object, object]:
        """Spare pytest the setups and teardowns that said nothing: it keeps each, and goes through
        all of them again for each failure. With ``--durations`` it tells of them.
        """
        result = yield
        is_told = self._config.getoption("durations") is not None
        terminal = None if is_told else self._config.pluginmanager.get_plugin("terminalreporter")
        kept = terminal.stats.get(_SETUPS_AND_TEARDOWNS) if terminal is not None else None
        if kept and kept[-1] is report and not report.sections:
            kept.pop()
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Show the host's own failure as an error, also in the middle of a test, and what it
        leaves unjudged apart.

        The many items of a host that did not boot are errors each, and one line in pytest's
        summary.
        """
        if not report.failed:  # tried again by pytest-rerunfailures
            return None
        if getattr(report, NOT_JUDGED_MARK, False):
            return "not judged", "E", "ERROR"
        if getattr(report, ERROR_MARK, False) and report.when == "call":
            return "error", "E", "ERROR"
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports; a run without one that was asked for is no success."""
        nixos = self._config.stash.get(SESSION, None)
        if nixos is None:
            return
        self._record.note_deaths(self._controller.deaths, self._controller.planned, nixos)
        self._record.close()
        findings = self._record.explained
        add_causes(self._config, findings)
        add_places(self._config, findings)
        facts = self._record.facts(nixos)
        if self._baseline is not None:
            facts = msgspec.structs.replace(facts, baseline=self._baseline.facts(findings))
        self._reports.write(findings, facts)
        # A run that was refused has seen no host, and leaves the directory to the next one.
        refused = session.exitstatus == pytest.ExitCode.USAGE_ERROR
        if self._recording is not None and not refused:
            self._recording.write(nixos, self._record.started_at)
        failed = self._reports.failed or (self._recording is not None and self._recording.failed)
        if failed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show counts by severity, the prioritised plan, and where the evidence lies."""
        session = self._config.stash.get(SESSION, None)
        if session is None:
            return
        findings = self._record.explained
        if findings:
            terminalreporter.section("NixOS findings")
            facts = self._record.facts(session)
            whole = self._config.get_verbosity() > 0
            terminalreporter.write(_drawn(terminalreporter, findings, facts, whole=whole))
            terminalreporter.write_line("")
            for notice in facts.waiver_notices:
                terminalreporter.write_line(printable(notice))
            for name, of_host in facts.hosts.items():
                for line in change_lines(name, of_host, whole=whole):
                    terminalreporter.write_line(line)
            for subject, difference in facts.upgrades.items():
                terminalreporter.write_line("")
                for line in upgrade_lines(subject, difference):
                    terminalreporter.write_line(line)
        kept = () if self._recording is None else self._recording.lines
        for line in (*self._since_baseline(findings), *self._reports.lines, *kept):
            terminalreporter.write_line(line)
        if findings:
            terminalreporter.write_line(printable(self._record.about_ledger))

    def _since_baseline(self, findings: Sequence[Finding]) -> list[str]:
        return [] if self._baseline is None else [*self._baseline.lines(findings), ""]


def _recording_files(settings: Settings) -> RecordingFiles | None:
    """Return what writes the recording that was asked for, ``None`` without one."""
    if settings.record is None:
        return None
    from pytest_nixos.plugin.record.recording_files import RecordingFiles

    return RecordingFiles(settings.record, Signer.of(settings.sign))


def _drawn(
    terminalreporter: pytest.TerminalReporter,
    findings: Sequence[Finding],
    facts: RunFacts,
    *,
    whole: bool,
) -> str:
    """Draw the summary as the terminal can show it."""
    # Loaded at the end of a run that tests hosts: rich costs every other run some 100 ms.
    from rich.console import Console

    from pytest_nixos.report.summary.terminal import print_summary

    colour = bool(terminalreporter.hasmarkup)
    text = io.StringIO()
    console = Console(
        file=text,
        width=max(80, terminalreporter._tw.fullwidth),  # noqa: SLF001 - pytest's own width of the terminal
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    print_summary(console, findings, facts, whole=whole)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())
