"""What happens in a run that tests hosts: open the session, collect, guard each item, share with
workers.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import NixosError, SettingsError, Unanswerable
from pytest_nixos.local.garbage import kept_until_the_end, seldom_collected
from pytest_nixos.local.text import printable_lines
from pytest_nixos.nix.building.platforms import refuse_where_no_guest_runs
from pytest_nixos.nix.flakes import Flakes
from pytest_nixos.plugin import collect, fixtures, host_fixture, suites
from pytest_nixos.plugin.evaluate import open_session
from pytest_nixos.plugin.host_failure import (
    HostFailure,
    refuse_failed,
    refuse_failed_rebooting,
)
from pytest_nixos.plugin.judging import data_controls
from pytest_nixos.plugin.judging.recorded_controls import recorded_items, replay_items
from pytest_nixos.plugin.machines.generations_ahead import GenerationsAhead
from pytest_nixos.plugin.machines.head_start import HeadStart
from pytest_nixos.plugin.machines.next_fresh import NextFresh
from pytest_nixos.plugin.machines.next_hosts import NextHosts
from pytest_nixos.plugin.machines.spares import Spares
from pytest_nixos.plugin.not_applicable import not_applicable
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.record import recording, replay
from pytest_nixos.plugin.record.baseline import Baseline
from pytest_nixos.plugin.record.maker import FindingMaker
from pytest_nixos.plugin.record.recorder import Recorder
from pytest_nixos.plugin.record.replay import ReplayedItem
from pytest_nixos.plugin.record.screens import ScreensOfFailures
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.settings.options import Settings
from pytest_nixos.plugin.stash import HEAD_START, NEXT_FRESH, NEXT_HOSTS, PROGRESS, SESSION
from pytest_nixos.plugin.watch.notes import WatchNotes
from pytest_nixos.plugin.workers.workers import (
    Controller,
    Worker,
    has_workers,
    is_worker,
    received_session,
)
from pytest_nixos.standards.judging.applicability import inapplicable

__all__ = ["RunHooks", "activate", "register_fixtures"]


def activate(
    config: pytest.Config,
    settings: Settings,
    flakes: Flakes | None,
    *,
    notes: WatchNotes | None = None,
) -> None:
    """Register what tests hosts, and add the bundled suites to what pytest collects.

    :param flakes: of the run, ``None`` in a worker of xdist.
    :param notes: of the watched session that this is a run of.
    :raises SettingsError: if a suite package or report format is unknown.
    """
    config.stash[PROGRESS] = Progress(config)
    packages = suites.SuitePackages.locate(
        [
            suites.BUNDLED_SUITES,
            *(name for names in config.hook.pytest_nixos_suites(config=config) for name in names),
        ]
    )
    _add_suites(config, settings, packages)
    manager = config.pluginmanager
    manager.register(RunHooks(settings, flakes, packages, notes), "nixos-run")
    register_fixtures(config)
    if not (is_worker(config) or has_workers(config)):
        # Workers have the machines of other runs, and several of one host.
        Spares.prepare(config, settings, owner=notes.watching_pid if notes else None)
    manager.register(FindingMaker(config, settings), "nixos-finding-maker")
    manager.register(ScreensOfFailures(), "nixos-screens")
    manager.register(GenerationsAhead(), "nixos-generations-ahead")
    if is_worker(config):
        manager.register(Worker(config), "nixos-worker")
    else:
        controller = Controller(config)
        manager.register(Recorder(config, settings, controller), "nixos-recorder")
        manager.register(controller, "nixos-controller")


def register_fixtures(config: pytest.Config) -> None:
    """Register the fixtures that tests of hosts ask for."""
    manager = config.pluginmanager
    manager.register(fixtures, "nixos-fixtures")
    manager.register(data_controls, "nixos-data-controls")
    manager.register(recording, "nixos-recording")
    manager.register(replay, "nixos-replay")
    # Registered last, so that it overrides testinfra's fixture of the same name.
    manager.register(host_fixture, "nixos-host-fixture")


class RunHooks:
    """Hooks of a run that tests hosts.

    :param flakes: of the run, ``None`` in a worker of xdist.
    :param notes: of the watched session that it is a run of.
    """

    def __init__(
        self,
        settings: Settings,
        flakes: Flakes | None,
        packages: suites.SuitePackages,
        notes: WatchNotes | None,
    ) -> None:
        self._settings = settings
        self._flakes = flakes
        self._packages = packages
        self._notes = notes

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """List the hosts. Under xdist evaluate them too, once for all workers: what is selected,
        only these will know.
        """
        until_the_end = ExitStack()
        until_the_end.enter_context(seldom_collected())
        session.config.add_cleanup(until_the_end.close)
        with kept_until_the_end():
            self._start(session)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Spare the collector of garbage the items, which stay."""
        with kept_until_the_end():
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(
        self, path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """Collect a suite's directory under its canonical name."""
        return suites.collect_suite_directory(self._packages, path, parent)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        """Collect a suite's module under its canonical name."""
        return suites.collect_suite_directory(self._packages, module_path, parent)

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> pytest.CollectReport | None:
        """Keep ``--lf`` from skipping suite modules, whose node ids are not paths below rootdir."""
        if isinstance(collector, suites.SuiteModule):
            from _pytest.runner import pytest_make_collect_report

            return pytest_make_collect_report(collector)
        return None

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Leave ``result`` and other links into the store alone."""
        return True if suites.is_store_link(collection_path) else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(
        self, collector: pytest.Module | pytest.Class, name: str, obj: object
    ) -> list[ReplayedItem] | None:
        """In a replay: multiply the bundled tests without fixtures."""
        session = collector.config.stash[SESSION]
        return recorded_items(collector, name, obj, session, self._packages)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Multiply tests by host and control."""
        collect.generate_tests(metafunc, metafunc.config.stash[SESSION], self._packages)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Apply profile and suite selection."""
        collect.select(config, items, config.stash[SESSION], self._packages)

    @pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_collection_modifyitems")
    def pytest_nixos_order(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Put the tests of a host together, whoever shuffled them before; destructive checks
        come last.
        """
        result = yield
        collect.order(items, config.stash[SESSION])
        return result

    @pytest.hookimpl(trylast=True, specname="pytest_collection_modifyitems")
    def pytest_evaluate_selected(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Evaluate the hosts that have tests after ``-k``, ``-m`` and the like; leave out those
        that turn out to be no machines.
        """
        if is_worker(config):
            replay_items(items, config.stash[SESSION])
            self._select_affected(config, items, tells=False)
        if is_worker(config) or config.option.collectonly:
            return
        keys = [key for key in dict.fromkeys(map(collect.host_key_of, items)) if key is not None]
        replay_items(items, config.stash[SESSION])
        left = self._evaluate(config, keys)
        collect.deselect_hosts(config, items, left)
        self._select_affected(config, items, tells=True)
        session = config.stash[SESSION]
        needed = [item for item in items if data_controls.needs_machine(item, session)]
        session.plan_builds([key for key in dict.fromkeys(map(collect.host_key_of, needed)) if key])
        if (ahead := config.stash.get(HEAD_START, None)) is not None:
            ahead.keep_for(session.planned)

    def _select_affected(
        self, config: pytest.Config, items: list[pytest.Item], *, tells: bool
    ) -> None:
        """In a watched session: leave out what the last change cannot affect."""
        session = config.stash[SESSION]
        if session.before is not None:
            from pytest_nixos.plugin.watch.affected import select_affected

            select_affected(config, items, session, self._packages, tells=tells)

    def _evaluate(self, config: pytest.Config, keys: Sequence[str]) -> tuple[str, ...]:
        progress = config.stash[PROGRESS]
        if (ahead := config.stash.get(HEAD_START, None)) is not None:
            ahead.wait_recalled()
        try:
            with progress.speaking():
                return config.stash[SESSION].evaluate(keys, progress.say)
        except NixosError as err:
            raise _usage_error(config, err) from err

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Tell where a long item is."""
        if collect.host_key_of(item) is None:
            return (yield)
        with item.config.stash[PROGRESS].watching(item.name):
            return (yield)

    def pytest_enter_pdb(self, config: pytest.Config) -> None:
        """Leave the terminal to whoever debugs."""
        config.stash[PROGRESS].hush()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Before a machine is started: skip what cannot apply, fail fast where the host failed
        before.
        """
        session = item.config.stash[SESSION]
        key = collect.host_key_of(item)
        if key is None:
            return
        entry = session.entry(key)
        again = getattr(item, "execution_count", 1) > 1  # as pytest-rerunfailures counts
        if again and (entry.failure or entry.rebooting_failure) is not None:
            entry.forget_machine()
            _end_machines(item)
        if collect.needs_machine(item) or entry.config is None:
            refuse_failed(entry)
        if collect.needs_rebooting_machine(item):
            refuse_failed_rebooting(entry)
        _skip_inapplicable(item, session, key)
        destructive = item.get_closest_marker("nixos_destructive") is not None
        try:
            session.changed_machines.begin(
                key, item.nodeid.partition("::")[0], destructive=destructive
            )
        except NixosError as err:
            raise HostFailure(err) from None

    @pytest.hookimpl(wrapper=True, specname="pytest_runtest_setup")
    def pytest_nixos_setup_prepared(self) -> Generator[None, object, object]:
        """What only Nix could tell is not applicable in a run without Nix."""
        return (yield from _without_nix())

    @pytest.hookimpl(wrapper=True, specname="pytest_runtest_call")
    def pytest_nixos_call_prepared(self) -> Generator[None, object, object]:
        """As for the setup."""
        return (yield from _without_nix())

    def _start(self, session: pytest.Session) -> None:
        config = session.config
        _end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
        received = received_session(config)
        config.stash[SESSION] = received or self._open(config)
        if received is None and self._notes is not None:
            config.stash[SESSION].before = self._notes.read()
        if received is None and has_workers(config):
            self._evaluate(config, config.stash[SESSION].host_keys)
        elif received is None:
            config.stash[HEAD_START] = HeadStart.of(
                config.stash[SESSION], progress=config.stash[PROGRESS], config=config
            )
        if not has_workers(config):
            opened, progress = config.stash[SESSION], config.stash[PROGRESS]
            config.stash[NEXT_FRESH] = NextFresh.of(opened, progress=progress, config=config)
            config.stash[NEXT_HOSTS] = NextHosts.of(
                opened,
                progress=progress,
                config=config,
                needs_machine=data_controls.needs_machine,
            )

    def _open(self, config: pytest.Config) -> NixosSession:
        settings = self._settings
        directories = [
            *settings.catalogue_dirs,
            *(d for ds in config.hook.pytest_nixos_catalogue_dirs(config=config) for d in ds),
        ]
        try:
            elsewhere = settings.backend is not None and settings.backend.runs_already
            runs_here = not elsewhere and settings.replay is None
            if runs_here and not config.option.collectonly:
                refuse_where_no_guest_runs()
            assert self._flakes is not None
            session = open_session(settings, self._flakes, catalogue_dirs=directories)
            _check_suites(settings, session)
            if (baseline := Baseline.of(settings)) is not None:
                baseline.check_hosts(session.host_keys)
        except NixosError as err:
            raise _usage_error(config, err) from err
        return session


def _without_nix() -> Generator[None, object, object]:
    try:
        return (yield)
    except Unanswerable as err:
        not_applicable(err.message)


def _usage_error(config: pytest.Config, error: NixosError) -> pytest.UsageError:
    detail = f"\n{error.detail}" if error.detail and config.getoption("verbose") > 0 else ""
    return pytest.UsageError(printable_lines(f"{error}{detail}"))


def _end_like_ctrl_c(*numbers: signal.Signals) -> None:
    """Tear machines down when the run is ended by a signal whose default would leave them
    behind.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, interrupt)


def _add_suites(config: pytest.Config, settings: Settings, packages: suites.SuitePackages) -> None:
    named_paths = config.args_source is pytest.Config.ArgsSource.ARGS
    if settings.suites == ("none",) or (named_paths and not settings.suites):
        return
    config.args += [str(directory) for directory in packages.directories.values()]


def _check_suites(settings: Settings, session: NixosSession) -> None:
    known = {control.suite for control in session.catalogue} | {"none"}
    for name in settings.suites:
        if name not in known:
            raise SettingsError(
                f"--nixos-suite {name}: no such suite",
                remedy=f"known suites: {', '.join(sorted(known))}",
            )


def _end_machines(item: pytest.Item) -> None:
    """End the shared machines of an item's host, so that the next who asks for one gets a sound
    one.
    """
    manager = item.session._fixturemanager  # noqa: SLF001 - pytest offers no other way to end a fixture early
    definitions = [
        definition
        for name in collect.SHARED_MACHINES
        for definition in manager.getfixturedefs(name, item) or ()
    ]
    for definition in definitions:
        definition.finish(item._request)  # type: ignore[attr-defined]  # noqa: SLF001 - as above


def _skip_inapplicable(item: pytest.Item, session: NixosSession, key: str) -> None:
    if session.entry(key).config is None:
        return
    backend = session.backend_name(key)
    if backend.runs_already and item.get_closest_marker("nixos_destructive"):
        not_applicable(f"it changes the machine, and {key} is {_whose(backend)}")
    for marker in item.iter_markers("nixos_requires"):
        if not collect.runs_as(backend, marker):
            as_what = _whose(backend) if backend is BackendName.TEST_DRIVER else backend.place
            not_applicable(f"needs {' or '.join(marker.args)}, and {key} runs as {as_what}")
    control = collect.control_of(item, session)
    if control is not None and control.check:
        why_not = inapplicable(control, session.host_config(key), backend)
        if why_not is not None:
            not_applicable(why_not)


def _whose(backend: BackendName) -> str:
    return "a live host" if backend is BackendName.SSH else "a machine of a NixOS test"
