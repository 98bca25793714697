"""Report writers: pure functions from findings to text, one writer a file."""

from __future__ import annotations

from pytest_nixos.report.facts import ReportWriter, RunFacts

__all__ = ["ReportWriter", "RunFacts"]
