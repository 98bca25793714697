"""Fixtures: one root parameter (the host's key), and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import BootError, NixosError
from pytest_nixos.findings import Evidence
from pytest_nixos.generations.upgrade_stage import Stage
from pytest_nixos.local.pace import Pressure, PressureMark
from pytest_nixos.machine.base import Machine
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.flake import Flake
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin.collect import control_of, host_key_of, needs_boot_loader
from pytest_nixos.plugin.host_failure import (
    HostFailure,
    refuse_failed,
    shown_apart,
    shown_once,
)
from pytest_nixos.plugin.judging.first_look import first_look
from pytest_nixos.plugin.machines.ahead import LiveHosts
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.machines.next_hosts import NextHosts
from pytest_nixos.plugin.not_applicable import not_applicable
from pytest_nixos.plugin.record.screens import keep_screen
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import (
    EVIDENCE,
    HEAD_START,
    NEXT_FRESH,
    NEXT_HOSTS,
    PROGRESS,
    SESSION,
)
from pytest_nixos.plugin.workers.workers import is_worker
from pytest_nixos.standards.control.model import Control

if TYPE_CHECKING:  # most runs need none of them
    from pytest_nixos.generations import Generations
    from pytest_nixos.generations.upgrade_outcome import UpgradeOutcome
    from pytest_nixos.machine.cluster.cluster import Cluster
    from pytest_nixos.machine.faults.faults import Faults
    from pytest_nixos.observe.network.internet import NeedsOfMachine
    from pytest_nixos.plugin.machines.upgrade import Upgrades
    from pytest_nixos.test_secrets.archive import TestSecrets
    from pytest_nixos.testinfra import NixosHost

__all__: list[str] = []

_LOOKED_AT = pytest.StashKey[dict[str, Observations]]()
_CALM = {"waited": None, "stolen": None, "span_s": 0.0}


@pytest.fixture(scope="session")
def _nixos_host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def _nixos_upgrades(request: pytest.FixtureRequest) -> Iterator[Upgrades]:
    from pytest_nixos.plugin.machines.upgrade import Upgrades

    config, session = request.config, _session(request)

    def launch(key: str, boot_loader: bool) -> Launch:
        progress = config.stash[PROGRESS]
        return Launch(session, key, progress=progress, config=config, boot_loader=boot_loader)

    with Upgrades(session, launch, config.stash[PROGRESS].say) as upgrades:
        try:
            yield upgrades
        finally:
            upgrades.keep(failed=request.session.testsfailed > 0)


@pytest.fixture(scope="session")
def nixos_host_config(request: pytest.FixtureRequest, _nixos_host: str) -> HostConfig:
    """What the host declares: its evaluated facts, typed."""
    entry = _session(request).entry(_nixos_host)
    if entry.config is not None:  # also where its machine has failed
        return entry.config
    with shown_once(entry):
        return _session(request).host_config(_nixos_host)


@pytest.fixture(scope="session")
def nixos_machine(request: pytest.FixtureRequest, _nixos_host: str) -> Iterator[Machine]:
    """The host's machine, built and booted at first use, shared by all tests of the host.

    After a module of destructive checks it goes back to its snapshot, where it has one.
    """
    changed = _session(request).changed_machines
    for machine in _machine(request, _nixos_host):
        changed.enter(_nixos_host, machine)
        try:
            yield machine
        finally:
            changed.leave(_nixos_host)


@pytest.fixture(scope="session")
def nixos_host_as(nixos_machine: Machine) -> Callable[[str], NixosHost]:
    """Testinfra's Host as a user of the machine meets it: ``nixos_host_as("alice")``."""
    from pytest_nixos.testinfra import make_host

    return lambda user: make_host(nixos_machine.as_user(user))


@pytest.fixture(scope="session")
def nixos_boot_failure(request: pytest.FixtureRequest, _nixos_host: str) -> BootError | None:
    """Why the host's machine did not boot; ``None`` where it did.

    A check that judges the boot itself takes it, runs before the others of its host, and fails
    where these cannot be judged.
    """
    entry = _session(request).entry(_nixos_host)
    if entry.failure is None or not entry.shown:
        try:
            request.getfixturevalue("nixos_machine")
        except HostFailure:
            if not isinstance(entry.failure, BootError):
                raise
    if isinstance(entry.failure, BootError):
        return entry.failure
    refuse_failed(entry)
    return None


@pytest.fixture
def nixos_fresh_machine(request: pytest.FixtureRequest, _nixos_host: str) -> Iterator[Machine]:
    """A machine of the host for this test alone; what the test breaks goes away with it.

    Where the host has a snapshot, the next test's machine is woken while the tests before it run, and
    stopped until then.

    With the marker ``nixos_requires("boot-loader")`` it has a disk and boot loader of its own.
    """
    vm = _session(request).backend_name(_nixos_host) is BackendName.VM
    loader = vm and needs_boot_loader(request.node)
    yield from _machine(request, _nixos_host, boot_loader=loader)


@pytest.fixture(scope="session")
def nixos_rebooting_machine(request: pytest.FixtureRequest, _nixos_host: str) -> Iterator[Machine]:
    """A machine that reboots into its boot default: a VM with a boot loader, or a container of
    its own.
    """
    vm = _session(request).backend_name(_nixos_host) is BackendName.VM
    yield from _machine(request, _nixos_host, boot_loader=vm)


@pytest.fixture(scope="session")
def nixos_rebooting_generations(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    nixos_rebooting_machine: Machine,
) -> Generations:
    """The life of ``nixos_rebooting_machine``, see ``nixos_generations``."""
    machine = nixos_rebooting_machine
    return _generations(_session(request), machine, machine.spec.host, tmp_path_factory)


@pytest.fixture(scope="session")
def nixos_observations(
    request: pytest.FixtureRequest, _nixos_host: str, nixos_machine: Machine
) -> Observations:
    """Facts of the running machine, read once per epoch: ``nixos_observations.of(probe)``."""
    ahead = request.config.stash.get(_LOOKED_AT, {})
    if (looked := ahead.pop(_nixos_host, None)) is not None:
        return looked
    store = Observations(nixos_machine)
    # Workers part the tests of one host: another one may judge its data controls.
    if not is_worker(request.config) and _nixos_host in _with_data_controls(request):
        look = first_look(_session(request), _nixos_host, nixos_machine, store)
        store.take_along(look.questions)
    return store


@pytest.fixture(scope="session")
def _nixos_live_hosts(request: pytest.FixtureRequest) -> Iterator[LiveHosts]:
    """Live hosts that are looked at ahead of their tests; none in any other run."""
    config, session = request.config, _session(request)

    def launch(key: str) -> Launch:
        progress = config.stash[PROGRESS]
        return Launch(session, key, progress=progress, config=config, tells=False)

    judged = _with_data_controls(request)

    def look(key: str, machine: Machine, observations: Observations) -> None:
        if key in judged:
            first_look(session, key, machine, observations).take()

    live = [key for key in session.planned if session.backend_name(key) is BackendName.SSH]
    keys = live if len(live) > 1 else []
    with LiveHosts(keys, at_once=session.settings.ssh_at_once, launch=launch, look=look) as hosts:
        yield hosts


@pytest.fixture(scope="session")
def _nixos_next_hosts(request: pytest.FixtureRequest) -> Iterator[NextHosts | None]:
    """Containers of next hosts, and those that are done with; ``None`` where a run has no such."""
    hosts = request.config.stash.get(NEXT_HOSTS, None)
    yield hosts
    if hosts is not None:
        hosts.close()


@pytest.fixture(scope="session")
def nixos_internet(
    request: pytest.FixtureRequest, _nixos_host: str, nixos_observations: Observations
) -> NeedsOfMachine:
    """Which units of the machine cannot be judged for want of an internet:
    ``nixos_internet.of(names)``.
    """
    return _session(request).needs_of(_nixos_host, lambda: nixos_observations)


@pytest.fixture(scope="session")
def nixos_generations(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    nixos_machine: Machine,
    nixos_host_config: HostConfig,
) -> Generations:
    """The life of the running machine: build further generations, switch, roll back, reboot, cut
    its power.
    """
    return _generations(_session(request), nixos_machine, nixos_host_config, tmp_path_factory)


@pytest.fixture
def nixos_fresh_generations(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    nixos_fresh_machine: Machine,
) -> Generations:
    """The life of a machine of this test alone, see ``nixos_generations``."""
    machine = nixos_fresh_machine
    return _generations(_session(request), machine, machine.spec.host, tmp_path_factory)


@pytest.fixture(scope="session")
def nixos_flake(request: pytest.FixtureRequest, nixos_host_config: HostConfig) -> Flake:
    """The flake of the host: its lock file, outputs and development shells; no machine is
    started.
    """
    return _session(request).flakes.of(nixos_host_config.ref.flake)


@pytest.fixture(scope="session")
def nixos_test_secrets(
    request: pytest.FixtureRequest,
    _nixos_host: str,
    nixos_machine: Machine,  # noqa: ARG001 - they are made when it starts
) -> TestSecrets:
    """The values that the machine has for the host's secrets: ``texts_of(secret)``."""
    secrets = _session(request).entry(_nixos_host).secrets
    if secrets is None:
        not_applicable("a live host has its own secrets, which nobody tells")
    return secrets


@pytest.fixture
def nixos_faults(nixos_machine: Machine) -> Faults:
    """Faults of the running machine, each a context manager that undoes itself; see
    :class:`Faults`.
    """
    from pytest_nixos.machine.faults.faults import Faults

    return Faults(nixos_machine)


@pytest.fixture(scope="session")
def nixos_cluster(
    request: pytest.FixtureRequest,
    nixos_host_config: HostConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Cluster]]:
    """Start several hosts on their networks: ``nixos_cluster("web", "db")``, as VMs with
    ``backend="vm"``; of another flake as ``"../infra#db"``, a container as Proxmox makes it with
    ``pct={"web": "--net0 name=eth0,ip=dhcp"}``. The same ones are started once.
    """
    from pytest_nixos.plugin.machines.captures import NetworkCaptures
    from pytest_nixos.plugin.machines.cluster import ClusterLaunch

    session = _session(request)
    if session.recording is not None:
        not_applicable("a replay has no machine")
    with ClusterLaunch(
        session.flakes,
        session.settings,
        own=nixos_host_config.ref.flake,
        hosts={entry.key: entry.ref for entry in session.entries},
        cwd=request.config.invocation_params.dir,
        progress=request.config.stash[PROGRESS],
        config=request.config,
        started_at_s=session.started_at_s,
    ) as launch:

        def start(
            *names: str,
            backend: str | Mapping[str, str] | None = None,
            pct: Mapping[str, str] | None = None,
        ) -> Cluster:
            try:
                return launch.start(*names, backend=backend, pct=pct)
            except NixosError as err:
                raise HostFailure(err) from None

        captures = NetworkCaptures(lambda: launch.running, tmp_path_factory.mktemp)
        request.config.pluginmanager.register(captures)
        yield start
        request.config.pluginmanager.unregister(captures)


@pytest.fixture(scope="session")
def nixos_place(request: pytest.FixtureRequest, _nixos_host: str) -> str:
    """Where the machine runs, in the catalogue's words: ``vm``, ``container`` or ``bare-metal``."""
    return _session(request).backend_name(_nixos_host).place


@pytest.fixture(scope="session")
def nixos_stage(request: pytest.FixtureRequest, _nixos_host: str) -> str:
    """The stage of an upgrade test, ``old``, ``new`` or ``back``; ``""`` in any other run."""
    return _session(request).entry(_nixos_host).stage or ""


@pytest.fixture
def nixos_slowness(
    request: pytest.FixtureRequest, _nixos_host: str, nixos_machine: Machine
) -> Callable[[], str]:
    """Say why times here are not the host's: this machine is slow, or was busy during the test
    or the boot; ``""`` if not.
    """
    began = PressureMark.now()
    entry = _session(request).entry(_nixos_host)
    of_boot = Pressure(**entry.circumstances.get("pressure_of_boot", _CALM)).words

    def words() -> str:
        since = began.until(PressureMark.now()).words
        return "; ".join(dict.fromkeys(filter(None, (nixos_machine.pace.words, since, of_boot))))

    return words


@pytest.fixture(scope="session")
def nixos_upgrade(request: pytest.FixtureRequest, _nixos_host: str) -> UpgradeOutcome | None:
    """How the new system of an upgrade test came to run; ``None`` in the other stages and in any
    other run.
    """
    entry = _session(request).entry(_nixos_host)
    if entry.stage is not Stage.NEW:
        return None
    request.getfixturevalue("nixos_machine")  # it goes that way
    upgrades: Upgrades = request.getfixturevalue("_nixos_upgrades")
    return upgrades.outcome(entry.subject)


@pytest.fixture(scope="session")
def nixos_progress(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tell people what a long check waits for; one moving line on a terminal, sparse lines in
    CI.
    """
    return request.config.stash[PROGRESS].tell


@pytest.fixture
def nixos_show_screen(
    request: pytest.FixtureRequest, _nixos_host: str, nixos_machine: Machine
) -> Callable[[str], str]:
    """Put a picture of the machine's screen into the HTML report: ``nixos_show_screen("after the
    login")``.

    It returns why there is none, ``""`` where there is: a container has no screen, and six pictures
    of a host are the most.
    """
    return partial(keep_screen, _session(request).entry(_nixos_host), nixos_machine)


@pytest.fixture
def nixos_evidence(request: pytest.FixtureRequest) -> Evidence:
    """What this check saw: ``expect``, ``observe`` and ``attach`` end up in its finding."""
    evidence: Evidence = request.node.stash.setdefault(EVIDENCE, Evidence())
    return evidence


@pytest.fixture
def nixos_control(request: pytest.FixtureRequest) -> Control:
    """The control that this item judges, with the profile's parameters and severity."""
    control = control_of(request.node, _session(request))
    if control is None:
        raise pytest.fail.Exception(
            "the fixture nixos_control needs the marker nixos_control(ID)", pytrace=False
        )
    return control


def _with_data_controls(request: pytest.FixtureRequest) -> set[str | None]:
    """Return the hosts of which data controls were selected."""
    return {
        host_key_of(item)
        for item in request.session.items
        if "nixos_judge" in getattr(item, "fixturenames", ())
    }


def _session(request: pytest.FixtureRequest) -> NixosSession:
    return request.config.stash[SESSION]


def _generations(
    session: NixosSession, machine: Machine, host: HostConfig, temporary: pytest.TempPathFactory
) -> Generations:
    from pytest_nixos.generations import Generations
    from pytest_nixos.generations.nix_bridge import NixBridge

    live = machine.backend.name is BackendName.SSH
    refusal = "it is a live host" if live and not session.settings.allow_live_switch else ""
    if machine.backend.name is BackendName.TEST_DRIVER:
        refusal = "it is a machine of a NixOS test, which goes on with it"
    roots = temporary.mktemp("generations")
    bridge = NixBridge(flakes=session.flakes, host=host, gc_roots=roots, live=live)
    return Generations(machine, bridge, refusal=refusal)


def _machine(
    request: pytest.FixtureRequest, key: str, *, boot_loader: bool = False
) -> Iterator[Machine]:
    session = _session(request)
    progress = request.config.stash[PROGRESS]
    entry = session.entry(key)
    if session.recording is not None:
        not_applicable("a replay has no machine")
    if entry.stage is not None and _is_shared(request):
        upgrades: Upgrades = request.getfixturevalue("_nixos_upgrades")
        with shown_once(entry), progress.speaking():
            progress.say(f"{key}: taking the machine there")
            machine = upgrades.machine(entry.subject, entry.stage)
        yield machine  # it outlives this fixture
        return
    live: LiveHosts = request.getfixturevalue("_nixos_live_hosts")
    if live.has(key) and _is_shared(request):
        yield from _visited(request, live, key)
        return
    config = request.config
    ahead = None if boot_loader else config.stash.get(HEAD_START, None)
    own = request.fixturename == "nixos_fresh_machine" and not boot_loader
    ready = config.stash.get(NEXT_FRESH, None) if own else None
    hosts: NextHosts | None = (
        request.getfixturevalue("_nixos_next_hosts") if _is_shared(request) else None
    )
    reboots = boot_loader or request.fixturename == "nixos_rebooting_machine"
    shown = shown_once(entry) if _is_shared(request) else shown_apart(entry, reboots=reboots)
    with ExitStack() as stack:
        with shown, progress.speaking():
            launch = (
                (ahead and ahead.take(key))
                or (ready and ready.take(key))
                or (hosts and hosts.take(key))
                or Launch(session, key, progress=progress, config=config, boot_loader=boot_loader)
            )
            machine = stack.enter_context(hosts.lent(launch) if hosts else launch)
        failed_before = request.session.testsfailed
        try:
            yield machine
        finally:
            launch.keep(failed=request.session.testsfailed > failed_before)


def _visited(request: pytest.FixtureRequest, live: LiveHosts, key: str) -> Iterator[Machine]:
    """Yield a live host that was looked at ahead."""
    progress = request.config.stash[PROGRESS]
    with ExitStack() as stack:
        with shown_once(_session(request).entry(key)), progress.speaking():
            progress.say(f"{key}: waiting for the live host")
            looked = stack.enter_context(live.visit(key))
        looked.launch.tell(looked.machine)
        request.config.stash.setdefault(_LOOKED_AT, {})[key] = looked.observations
        failed_before = request.session.testsfailed
        try:
            yield looked.machine
        finally:
            looked.launch.keep(failed=request.session.testsfailed > failed_before)


def _is_shared(request: pytest.FixtureRequest) -> bool:
    """Whether the machine is the one that all tests of a host share."""
    return request.fixturename == "nixos_machine"
