"""``--nixos-baseline``: what failed in an earlier run alike does not fail this one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Self

from pytest_nixos.errors import SettingsError
from pytest_nixos.findings import Finding, Outcome
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.report.comparing.compare import Comparison, Verdict, compare, held_against
from pytest_nixos.report.comparing.comparison_text import comparison_lines
from pytest_nixos.report.comparing.saved import SavedReport, read_report

__all__ = ["Baseline"]


class Baseline:
    """The findings of an earlier run.

    :param report: of that run.
    """

    def __init__(self, report: SavedReport) -> None:
        self._report = report
        self._failed = {
            (f.host, f.control): f for f in report.findings if f.outcome is Outcome.FAILED
        }

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Read what ``--nixos-baseline`` names, ``None`` without it.

        :raises SettingsError: if it is no JSON report of this version.
        """
        if settings.baseline is None:
            return None
        return cls(read_report(settings.baseline, asked_by="--nixos-baseline"))

    def check_hosts(self, keys: Iterable[str]) -> None:
        """Refuse a baseline that knows none of the hosts of this run.

        :raises SettingsError: if so.
        """
        hosts = tuple(keys)
        if hosts and not set(hosts) & set(self._report.hosts):
            raise SettingsError(
                f"--nixos-baseline {self._report.path}: is of other hosts:"
                f" {', '.join(self._report.hosts) or 'none'}; this run tests {', '.join(hosts)}",
                remedy="name a report of these hosts, or leave the baseline out",
            )

    def held(self, finding: Finding) -> tuple[Finding, str]:
        """Return a finding that says how it stands to the baseline, and why where that is told."""
        if not finding.failed:
            return finding, ""
        verdict, why = held_against(finding, self._failed.get((finding.host, finding.control)))
        return dataclasses.replace(finding, against_baseline=verdict.value), why

    @staticmethod
    def excuses(finding: Finding) -> bool:
        """Whether a finding that was held against the baseline fails no run."""
        return finding.against_baseline == Verdict.KNOWN.value

    def comparison(self, findings: Iterable[Finding]) -> Comparison:
        """Compare with the findings of this run, of the hosts that both have."""
        now = tuple(findings)
        hosts = {f.host for f in now}
        return compare([f for f in self._report.findings if f.host in hosts], now)

    def lines(self, findings: Iterable[Finding]) -> Iterator[str]:
        """Yield what became of the baseline's findings, as the terminal shows it."""
        yield f"against the baseline of {self._report.started_at}:"
        yield from (f"  {line}" for line in comparison_lines(self.comparison(findings)))

    def facts(self, findings: Iterable[Finding]) -> dict[str, Any]:
        """Return what reports tell of it: controls and hosts by group."""
        found = self.comparison(findings)
        return {
            "path": str(self._report.path),
            "started_at": self._report.started_at,
            **{
                group: [
                    {"host": change.of.host, "control": change.of.control, "why": change.why}
                    for change in getattr(found, group)
                ]
                for group in found.__struct_fields__
            },
        }
