"""What a run has found so far: findings in memory and in the ledger, and the facts that reports tell of the run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_nixos import __version__
from pytest_nixos.findings import Finding, Ledger, Outcome
from pytest_nixos.plugin.host_failure import why_not_judged
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.report.facts import RunFacts
from pytest_nixos.report.upgrade import compare_stages
from pytest_nixos.standards.waivers import idle_waivers

__all__ = ["LEDGERS_KEPT", "RunRecord"]

LEDGERS_KEPT = 20


class RunRecord:
    """Findings of a run, kept by the controlling process; each is on disk before the next check runs."""

    def __init__(self) -> None:
        self.ledger: Ledger | None = None
        self._findings: dict[tuple[str, str, str], Finding] = {}
        self._started_at = datetime.now(UTC)
        self._started_s = time.monotonic()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the last of each item."""
        return tuple(self._findings.values())

    def open_ledger(self, directory: Path) -> None:
        """Begin a ledger, and remove the oldest ones."""
        for path in sorted(directory.glob("*.jsonl"))[: -LEDGERS_KEPT + 1]:
            path.unlink(missing_ok=True)
        name = f"{self._started_at:%Y%m%dT%H%M%S}-{os.getpid()}.jsonl"
        self.ledger = Ledger(directory / name)

    def add(self, finding: Finding) -> None:
        """Keep a finding; a later one of the same item replaces it."""
        self._findings[finding.control, finding.host, finding.node_id] = finding
        if self.ledger is not None:
            self.ledger.append(finding)

    def close(self) -> None:
        """End the ledger."""
        if self.ledger is not None:
            self.ledger.close()

    def facts(self, session: NixosSession) -> RunFacts:
        """Return what reports tell of the run as a whole."""
        return RunFacts(
            plugin_version=__version__,
            started_at=self._started_at.isoformat(timespec="seconds"),
            duration_s=round(time.monotonic() - self._started_s, 3),
            hosts={entry.key: _host_facts(entry, session) for entry in session.tested},
            fail_on=session.settings.fail_on.name,
            waiver_notices=self.waiver_notices(session),
            upgrades=self.upgrades(session),
        )

    def upgrades(self, session: NixosSession) -> dict[str, dict[str, Any]]:
        """Return what differs between the stages of each host of an upgrade test."""
        found = {}
        for subject in dict.fromkeys(e.subject for e in session.entries if e.state is not None):
            stages = {
                stage: entry
                for entry in session.entries
                if entry.subject == subject and (stage := entry.stage) is not None
            }
            states = {stage: e.state for stage, e in stages.items() if e.state is not None}
            findings = {
                stage: [f for f in self.findings if f.host == stages[stage].key] for stage in states
            }
            found[subject] = compare_stages(states, findings)
        return found

    def waiver_notices(self, session: NixosSession) -> tuple[str, ...]:
        """Return a line for each waiver that waived nothing."""
        judged_last = sorted(self.findings, key=lambda f: f.outcome is not Outcome.NOT_APPLICABLE)
        return idle_waivers(
            session.waivers,
            judged={(f.control, f.host): (f.outcome, f.reason) for f in judged_last},
            hosts=session.host_keys,
            selected={control.id for control in session.controls},
            aliases={c.id: c.judged_as for c in session.catalogue if c.judged_as is not None},
        )


def _host_facts(entry: HostEntry, session: NixosSession) -> Mapping[str, object]:
    config = entry.config
    facts: dict[str, object] = {
        "ref": str(entry.ref),
        "phases_s": {name: round(seconds, 3) for name, seconds in entry.phases_s.items()},
        "failure": None if entry.failure is None else str(entry.failure),
        "why": "" if entry.failure is None else why_not_judged(entry.failure),
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
