"""The fixture that judges data controls: everything that they need is observed together, then
each is judged.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import Unanswerable
from pytest_nixos.findings import Evidence, Outcome
from pytest_nixos.nix.file_hosts import FileHosts
from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.closure import scan_host
from pytest_nixos.plugin.host_failure import refuse_failed, shown_once
from pytest_nixos.plugin.not_applicable import not_applicable
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import PROGRESS, SESSION
from pytest_nixos.standards.applicability import inapplicable
from pytest_nixos.standards.flake_files import FlakeFiles, StoreScan, flake_directory, read_flake
from pytest_nixos.standards.judge import judge
from pytest_nixos.standards.kinds import KINDS
from pytest_nixos.standards.look import closure_observation, host_observations, read
from pytest_nixos.standards.model import Control

__all__ = ["needs_machine"]


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
) -> Callable[[Control], None]:
    """Judge a data control: it passes, fails, or ends the item as not applicable.

    The machine is started only where a control has to be seen on one.
    """
    session = request.config.stash[SESSION]
    backend = session.backend_name(_nixos_host)

    def judge_control(control: Control) -> None:
        if control.check:
            not_applicable("it is judged by a Python check of its own")
        observations: Mapping[str, object] = {}
        if _reads_host_machine(control):
            # The closure is read without the flake's files too.
            with suppress(Unanswerable) if _reads_closure(control) else nullcontext():
                observations = request.getfixturevalue("nixos_host_observations")
            if _reads_closure(control):
                refuse_failed(session.entry(_nixos_host))
                # Only here is the system built and read: other controls of the profile do not need
                # it.
                scan: StoreScan | None = request.getfixturevalue("nixos_closure_scan")
                if scan is not None:
                    observations = {**observations, **closure_observation(scan)}
                    nixos_evidence.attach("what was scanned", scan.told)
        elif _needs_machine(control, nixos_host_config, backend):
            # The fixture of a machine that did not boot would tell why in full, each time.
            refuse_failed(session.entry(_nixos_host))
            store: Observations = request.getfixturevalue("nixos_observations")
            observations = read(session.controls, nixos_host_config, store)
        verdict = judge(control, nixos_host_config, observations, backend)
        nixos_evidence.expect(verdict.expected)
        nixos_evidence.observe(verdict.observed)
        nixos_evidence.judge_on(verdict.judged_on)
        if verdict.outcome is Outcome.NOT_APPLICABLE:
            not_applicable(verdict.reason)
        if verdict.outcome is not Outcome.PASSED and control.observed is not None:
            kind = KINDS[control.observed.kind]
            nixos_evidence.blames += kind.blames(control.observed.parameters, verdict.observed)
        if verdict.outcome is not Outcome.PASSED:
            pytest.fail(verdict.reason, pytrace=False)

    return judge_control


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
        and _needs_machine(control, session.host_config(key), session.backend_name(key))
    )


def _needs_machine(control: Control, host: HostConfig, backend: BackendName) -> bool:
    return (
        control.is_data
        and control.observed is not None
        and backend not in control.falsified_in
        and inapplicable(control, host, backend) is None
    )


def _reads_host_machine(control: Control) -> bool:
    return control.observed is not None and KINDS[control.observed.kind].host_side


def _reads_closure(control: Control) -> bool:
    return control.observed is not None and control.observed.kind == "store-scan"


def _flake_files(session: NixosSession, host: HostConfig) -> FlakeFiles:
    """Read the flake as Nix copied it; its checkout, where there is one, tells what git tracks."""
    flake = session.flakes.of(host.ref.flake)
    if isinstance(flake, FileHosts):
        return read_flake(flake.source, no_flake="the host comes from a file, not from a flake")
    return read_flake(flake.source, checkout=flake_directory(host.ref.flake.url))
