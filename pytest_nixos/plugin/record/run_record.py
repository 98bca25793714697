"""What a run has found so far: findings in memory and in the ledger, and the facts that reports
tell of the run.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pytest_nixos import __version__
from pytest_nixos.errors import NixosError
from pytest_nixos.findings import Finding, JudgedOn, Ledger, Outcome
from pytest_nixos.nix.command.metadata import subfolder
from pytest_nixos.nix.config.changes import changes, leaves
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.plugin.host_failure import why_not_judged
from pytest_nixos.plugin.session import HostEntry, NixosSession
from pytest_nixos.plugin.workers.workers import Planned
from pytest_nixos.report.comparing.upgrade import compare_stages
from pytest_nixos.report.facts import RunFacts
from pytest_nixos.report.summary.causes import explained
from pytest_nixos.standards.waivers import idle_waivers

__all__ = ["LEDGERS_KEPT", "RunRecord", "folder_of_flake"]

LEDGERS_KEPT = 20


class RunRecord:
    """Findings of a run, kept by the controlling process; each is on disk before the next check
    runs.
    """

    def __init__(self) -> None:
        self.about_ledger = ""
        self._ledger: Ledger | None = None
        self._deaths: tuple[str, ...] = ()
        self._findings: dict[tuple[str, str, str], Finding] = {}
        self._explained: tuple[Finding, ...] | None = None
        self._started_at = datetime.now(UTC)
        self._started_s = time.monotonic()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the last of each item."""
        return tuple(self._findings.values())

    @property
    def explained(self) -> tuple[Finding, ...]:
        """All findings, linked to their causes and in the order of reports."""
        if self._explained is None:
            self._explained = explained(self.findings)
        return self._explained

    @property
    def started_at(self) -> str:
        """When the run began, ISO 8601 with zone."""
        return self._started_at.isoformat(timespec="seconds")

    def open_ledger(self, directory: Path) -> None:
        """Begin a ledger, and remove the oldest ones.

        :raises OSError: if it cannot be written.
        """
        for path in sorted(directory.glob("*.jsonl"))[: -LEDGERS_KEPT + 1]:
            path.unlink(missing_ok=True)
        name = f"{self._started_at:%Y%m%dT%H%M%S}-{os.getpid()}.jsonl"
        self._ledger = Ledger(directory / name)
        self.about_ledger = f"ledger: {self._ledger.path}"

    def no_ledger(self, error: Exception) -> None:
        """Go on without a ledger, and remember why."""
        self.close()
        self._ledger = None
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.about_ledger = f"ledger: not kept: {why}"

    def add(self, finding: Finding) -> None:
        """Keep a finding; a later one of the same item replaces it."""
        self._findings[finding.control, finding.host, finding.node_id] = finding
        self._explained = None
        if self._ledger is not None:
            try:
                self._ledger.append(finding)
            except OSError as err:
                self.no_ledger(err)

    def note_deaths(
        self, deaths: Sequence[str], planned: Sequence[Planned], session: NixosSession
    ) -> None:
        """Where workers died, note what they were to judge and did not: it is an error, not
        nothing.

        :param deaths: a line for each death.
        """
        if not deaths:
            return
        self._deaths = tuple(deaths)
        judged = {finding.node_id for finding in self.findings}
        for item in planned:
            if item.node_id in judged:
                continue
            control = session.control(item.control)
            died = next((text for text in deaths if item.node_id in text), "")
            self.add(
                Finding(
                    control=control.id,
                    title=control.title,
                    suite=control.suite,
                    host=item.host,
                    backend=session.backend_name(item.host).value,
                    severity=control.severity,
                    outcome=Outcome.ERROR,
                    judged_on=JudgedOn.NOTHING.value,
                    reason=died or "not judged: the worker that was to judge it died",
                    threat="",
                    remedy="",
                    references=control.references,
                    node_id=item.node_id,
                )
            )

    def close(self) -> None:
        """End the ledger."""
        if self._ledger is not None:
            self._ledger.close()

    def facts(self, session: NixosSession) -> RunFacts:
        """Return what reports tell of the run as a whole."""
        return RunFacts(
            plugin_version=__version__,
            started_at=self.started_at,
            duration_s=round(time.monotonic() - self._started_s, 3),
            hosts={entry.key: _host_facts(entry, session) for entry in session.tested},
            fail_on=session.settings.fail_on.name,
            waiver_notices=self.waiver_notices(session),
            upgrades=self.upgrades(session),
            incomplete=self._deaths,
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
        "circumstances": entry.circumstances,
        # For people alone: the JSON report leaves them out.
        "screens": entry.screens,
    }
    if config is not None:
        facts |= {
            "backend": session.backend_name(entry.key).value,
            "release": config.release,
            "version": config.version,
            "warnings": list(config.warnings),
            **_changes(config, entry.circumstances),
            "folder": folder_of_flake(entry, session),
            "declared": _declared(config),
        }
    return facts


def _declared(config: HostConfig) -> dict[str, object]:
    """Return what two runs are compared by beside their findings."""
    firewall = config.firewall
    opened = {"": firewall.everywhere, **firewall.interfaces}
    ports = sorted(
        f"{protocol} {span}{f' on {interface}' if interface else ''}"
        for interface, spans in opened.items()
        for protocol in ("tcp", "udp")
        for span in getattr(spans, protocol)
    )
    return {
        "toplevel": config.toplevel,
        "units": sorted(name for name, unit in config.units.items() if unit.enabled),
        "ports": ports if firewall.enabled else ["no firewall"],
        "users": sorted(config.users),
        "sysctls": dict(config.sysctls),
    }


def folder_of_flake(entry: HostEntry, session: NixosSession) -> str:
    """Return where below its source tree the flake lies: places in findings are relative to it."""
    with contextlib.suppress(NixosError):
        return subfolder(session.flakes.of(entry.ref.flake).metadata)
    return ""


def _changes(config: HostConfig, circumstances: Mapping[str, Any]) -> Mapping[str, object]:
    """Return what the machine has instead of what the host declares: each option, and the
    groups of them; what a slow machine's guest was told on its kernel's command line included.
    """
    changed = dict(config.changed)
    if added := circumstances.get("added_kernel_params"):
        own = list(config.kernel_params)
        declared, real = changed.get("boot.kernelParams", (own, own))
        changed["boot.kernelParams"] = (
            declared,
            [*(real if isinstance(real, list) else own), *added],
        )
    return {
        "changed_options": {path: list(pair) for path, pair in leaves(changed).items()},
        "changes": [
            {"what": change.what, "why": change.why, "options": list(change.options)}
            for change in changes(changed)
        ],
    }
