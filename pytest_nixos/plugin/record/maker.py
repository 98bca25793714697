"""The plugin that makes findings, in the process where the items run."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_nixos.errors import (
    BootError,
    BrokenMachineError,
    CommandTimeout,
    NixosError,
    TransportError,
)
from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.local.pace import PressureMark
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.host_failure import HostFailure, NotJudged
from pytest_nixos.plugin.record.baseline import Baseline
from pytest_nixos.plugin.record.clean_report import clean_report
from pytest_nixos.plugin.record.finding import (
    ERROR_MARK,
    NOT_JUDGED_MARK,
    make_finding,
    properties,
    show,
)
from pytest_nixos.plugin.record.journal import span_begins
from pytest_nixos.plugin.record.replay import as_recorded
from pytest_nixos.plugin.record.unjudged import unjudged_without_internet
from pytest_nixos.plugin.session import HostEntry
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.plugin.stash import SESSION

__all__ = ["FINDING", "FindingMaker", "finding_of"]

# Attribute of a report: the finding, as JSON where the report has crossed xdist.
FINDING = "nixos_finding"
_TRACEBACK_VERBOSITY = 2
_BEGAN = pytest.StashKey[PressureMark]()
_FAILED_PART = pytest.StashKey[Finding | None]()


class FindingMaker:
    """Hooks around each item of a host: its report carries the finding of its control."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._shows_traceback = config.get_verbosity() >= _TRACEBACK_VERBOSITY
        self._fail_on = settings.fail_on
        self._baseline = Baseline.of(settings)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note when the item began: the journal of a failure starts there."""
        span_begins(item)
        replays = item.config.stash[SESSION].recording is not None
        item.stash[_BEGAN] = PressureMark.unread() if replays else PressureMark.now()
        item.stash[_FAILED_PART] = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Attach a finding to the report that decides an item, and let waivers and
        --nixos-fail-on speak.
        """
        report = yield
        key = collect.host_key_of(item)
        if key is None:
            return report
        session = item.config.stash[SESSION]
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, NixosError) and report.failed:
            _note_error(report, error, session.entry(key), item)
        if isinstance(error, HostFailure | NotJudged):
            report.longrepr = str(error)
            setattr(report, ERROR_MARK, True)
            setattr(report, NOT_JUDGED_MARK, isinstance(error, NotJudged))
        control = collect.control_of(item, session)
        decides = report.when == "call" or (report.when == "setup" and not report.passed)
        if control is not None and decides:
            began = item.stash.get(_BEGAN, None) or PressureMark.now()
            finding = make_finding(item, report, control, key, session, began=began)
            if session.recording is not None:
                finding = as_recorded(finding, item, session.recording)
            finding = unjudged_without_internet(finding, item, session)
            # A subtest has a report of its own, before that of the test, which passes until all are
            # counted.
            finding = item.stash.get(_FAILED_PART, None) or finding
            if finding.outcome is Outcome.FAILED:
                item.stash[_FAILED_PART] = finding
            self._attach(item, report, finding)
        clean_report(report)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_report_to_serializable(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> Generator[None, dict[str, object] | None, dict[str, object] | None]:
        """Write the finding as JSON where a report crosses to another process or into a file."""
        data = yield
        finding = getattr(report, FINDING, None)
        if data is not None and isinstance(finding, Finding):
            data[FINDING] = finding.to_json()
        return data

    def _attach(self, item: pytest.Item, report: pytest.TestReport, finding: Finding) -> None:
        if self._baseline is not None:
            finding, _ = self._baseline.held(finding)
        setattr(report, FINDING, finding)
        if finding.outcome is Outcome.FAILED and not self._shows_traceback:
            # Loads rich, which nothing else needs before the run's summary.
            from pytest_nixos.report.summary.terminal import failure_lines

            report.longrepr = "\n".join(failure_lines(finding))
        show(report, finding, below=finding.severity < self._fail_on)
        if Baseline.excuses(finding) and report.failed:
            report.outcome = "skipped"
            report.wasxfail = f"known from the baseline: {finding.reason}"
        # Properties cross xdist, and JUnit writes them when the item is torn down.
        item.user_properties += properties(finding)


def finding_of(report: pytest.TestReport) -> Finding | None:
    """Return the finding that a report carries."""
    finding = getattr(report, FINDING, None)
    return Finding.from_json(finding) if isinstance(finding, dict) else finding


def _note_error(
    report: pytest.TestReport, error: NixosError, entry: HostEntry, item: pytest.Item
) -> None:
    """Show a :class:`NixosError` without a traceback; a machine that went away fails the host's
    later tests fast.

    What ran out of time is shown with how busy this machine was: that may be all there is to it.
    """
    report.longrepr = str(error)
    began = item.stash.get(_BEGAN, None)
    if isinstance(error, CommandTimeout | BootError) and began is not None:
        busy = began.until(PressureMark.now()).words
        report.longrepr = f"{error}\n  {busy}" if busy else str(error)
    setattr(report, ERROR_MARK, True)
    gone = isinstance(error, TransportError) and not isinstance(error, CommandTimeout)
    broken = gone or isinstance(error, BrokenMachineError)
    if broken and collect.judges_shared_machine(item):
        entry.fail(error)
        entry.shown = True
