"""What a report writer is given, and what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from pytest_nixos.findings import Finding

__all__ = ["ReportWriter", "RunFacts"]


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says about the run as a whole.

    :param hosts: per host: backend, release, changed options and other facts, JSON-able.
    :param upgrades: per host of an upgrade test: what differs between its stages.
    :param started_at: ISO 8601 with zone.
    :param duration_s: wall clock seconds.
    :param waiver_notices: waivers that met no judged control, and why.
    :param baseline: what became of the findings since an earlier run, JSON-able; empty without one.
    :param incomplete: why some of it was not judged though it was to be: workers that died.
    """

    plugin_version: str
    started_at: str
    duration_s: float
    hosts: Mapping[str, Mapping[str, object]]
    fail_on: str
    waiver_notices: Sequence[str] = ()
    upgrades: Mapping[str, Mapping[str, object]] = msgspec.field(default_factory=dict)
    incomplete: Sequence[str] = ()
    baseline: Mapping[str, object] = msgspec.field(default_factory=dict)


class ReportWriter(Protocol):
    """Writes one format of report; a function will do.

    A plugin offers its own by the hook ``pytest_nixos_report_writers``.
    """

    def __call__(self, findings: Sequence[Finding], run: RunFacts, /) -> str:
        """Return the report's text.

        It is a pure function: it writes no file and asks nobody. Guest text in findings (reasons,
        observed values, attachments, names of hosts) is untrusted and has to be escaped as the
        format demands.

        :param findings: worst first, causes before what they explain.
        :param run: the run as a whole.
        """
        ...
