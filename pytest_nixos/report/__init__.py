"""Report writers: pure functions from findings to text, one writer a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_nixos.findings import Finding

__all__ = ["ReportWriter", "RunFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a report says about the run as a whole.

    :param hosts: per host: backend, release, changed options and other facts, JSON-able.
    :param upgrades: per host of an upgrade test: what differs between its stages.
    :param started_at: ISO 8601 with zone.
    :param duration_s: wall clock seconds.
    :param waiver_notices: waivers that met no judged control, and why.
    """

    plugin_version: str
    started_at: str
    duration_s: float
    hosts: Mapping[str, Mapping[str, object]]
    fail_on: str
    waiver_notices: Sequence[str] = ()
    upgrades: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


ReportWriter = Callable[[Sequence[Finding], RunFacts], str]
