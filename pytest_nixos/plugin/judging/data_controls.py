"""The fixture that judges data controls: everything that they need is observed together, then
each is judged.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_nixos.errors import Unanswerable
from pytest_nixos.findings import Evidence, Outcome
from pytest_nixos.machine.base import Machine
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.file_hosts import FileHosts
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.host_failure import refuse_failed, shown_once
from pytest_nixos.plugin.judging.first_look import first_look
from pytest_nixos.plugin.not_applicable import not_applicable
from pytest_nixos.plugin.record.replay import SCANNED, reads_closure, recorded_observations
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import PROGRESS, SESSION
from pytest_nixos.standards.control.model import Control
from pytest_nixos.standards.judging.applicability import looks_at_machine
from pytest_nixos.standards.judging.judge import Verdict, judge
from pytest_nixos.standards.judging.look import closure_observation, host_observations
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.sources.flake_files import (
    FlakeFiles,
    StoreScan,
    flake_directory,
    read_flake,
)

if TYPE_CHECKING:
    from pytest_nixos.recording.notes import HostNotes
    from pytest_nixos.recording.observed import Recorded

__all__ = ["end", "needs_machine"]


@pytest.fixture(scope="session")
def nixos_host_observations(
    request: pytest.FixtureRequest, nixos_host_config: HostConfig
) -> Mapping[str, object]:
    """What is read on the host machine without a build: the flake's files and lock."""
    session = request.config.stash[SESSION]
    return host_observations(
        today=dt.datetime.now(tz=dt.UTC).date(), flake=_flake_files(session, nixos_host_config)
    )


@pytest.fixture(scope="session")
def nixos_closure_scan(request: pytest.FixtureRequest, _nixos_host: str) -> StoreScan | None:
    """What was found in the closure of the host's system, which is built for it and not started."""
    session = request.config.stash[SESSION]
    entry = session.entry(_nixos_host)
    if session.recording is not None:
        not_applicable("a replay has no closure to scan")
    from pytest_nixos.plugin.judging.closure import scan_host

    with shown_once(entry):
        flake = None
        with suppress(Unanswerable):  # a host that was prepared without its flake
            flake = session.flakes.of(entry.ref.flake).root
        return scan_host(session, _nixos_host, flake=flake, progress=request.config.stash[PROGRESS])


@pytest.fixture
def nixos_judge(
    request: pytest.FixtureRequest,
    _nixos_host: str,
    nixos_host_config: HostConfig,
    nixos_evidence: Evidence,
    _nixos_notes: HostNotes | None,
    _nixos_recorded: Recorded | None,
) -> Callable[[Control], None]:
    """Judge a data control: it passes, fails, or ends the item as not applicable.

    The machine is started only where a control has to be seen on one.
    """
    session = request.config.stash[SESSION]
    backend = session.backend_name(_nixos_host)
    looks = _Looks(request, _nixos_host, nixos_host_config, nixos_evidence, _nixos_notes)

    def judge_control(control: Control) -> None:
        if control.check:
            not_applicable("it is judged by a Python check of its own")
        if _nixos_recorded is None:
            observations = looks.observations(control)
        else:
            observations = recorded_observations(_nixos_recorded, control, nixos_evidence)
        end(judge(control, nixos_host_config, observations, backend), nixos_evidence)

    return judge_control


class _Looks(msgspec.Struct, frozen=True):
    """Finds what one control of a host has to see, on the machine or beside it."""

    request: pytest.FixtureRequest
    key: str
    host: HostConfig
    evidence: Evidence
    notes: HostNotes | None

    def observations(self, control: Control) -> Mapping[str, object]:
        """Return what was observed, by kind; nothing for what is judged on the config alone."""
        session = self.request.config.stash[SESSION]
        if _reads_host_machine(control):
            observations = self._host_side(control)
            if self.notes is not None:
                self.notes.saw_host_side(observations)
            return observations
        if not looks_at_machine(control, self.host, session.backend_name(self.key)):
            return {}
        # The fixture of a machine that did not boot would tell why in full, each time.
        refuse_failed(session.entry(self.key))
        store: Observations = self.request.getfixturevalue("nixos_observations")
        machine: Machine = self.request.getfixturevalue("nixos_machine")
        observations = first_look(session, self.key, machine, store).take()
        if self.notes is not None:
            self.notes.saw_machine(store, observations)
        return observations

    def _host_side(self, control: Control) -> Mapping[str, object]:
        observations: Mapping[str, object] = {}
        # The closure is read without the flake's files too.
        with suppress(Unanswerable) if reads_closure(control) else nullcontext():
            observations = self.request.getfixturevalue("nixos_host_observations")
        if not reads_closure(control):
            return observations
        refuse_failed(self.request.config.stash[SESSION].entry(self.key))
        # Only here is the system built and read: other controls of the profile do not need it.
        scan: StoreScan | None = self.request.getfixturevalue("nixos_closure_scan")
        if scan is None:
            return observations
        self.evidence.attach(SCANNED, scan.told)
        return {**observations, **closure_observation(scan)}


def end(verdict: Verdict, evidence: Evidence) -> None:
    """End the item as a verdict says, and keep what it rests on."""
    control = verdict.control
    evidence.expect(verdict.expected)
    evidence.observe(verdict.observed)
    evidence.judge_on(verdict.judged_on)
    if verdict.outcome is Outcome.NOT_APPLICABLE:
        not_applicable(verdict.reason)
    if verdict.outcome is not Outcome.PASSED and control.observed is not None:
        kind = KINDS[control.observed.kind]
        evidence.blames += kind.blames(control.observed.parameters, verdict.observed)
    if verdict.outcome is not Outcome.PASSED:
        pytest.fail(verdict.reason, pytrace=False)


def needs_machine(item: pytest.Item, session: NixosSession) -> bool:
    """Whether an item starts its host's machine, as far as that is known before it runs."""
    key = collect.host_key_of(item)
    if key is None or session.entry(key).config is None:
        return False
    if collect.needs_machine(item):
        return True
    judged = "nixos_judge" in getattr(item, "fixturenames", ())
    control = collect.control_of(item, session) if judged else None
    return (
        control is not None
        and not _reads_host_machine(control)
        and looks_at_machine(control, session.host_config(key), session.backend_name(key))
    )


def _reads_host_machine(control: Control) -> bool:
    return control.observed is not None and KINDS[control.observed.kind].host_side


def _flake_files(session: NixosSession, host: HostConfig) -> FlakeFiles:
    """Read the flake as Nix copied it; its checkout, where there is one, tells what git tracks."""
    flake = session.flakes.of(host.ref.flake)
    if isinstance(flake, FileHosts):
        return read_flake(flake.source, no_flake="the host comes from a file, not from a flake")
    return read_flake(flake.source, checkout=flake_directory(host.ref.flake.url))
