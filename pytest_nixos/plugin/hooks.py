"""The pytest plugin: declares options and hooks; where hosts are given, registers the rest.

Without ``--nixos-flake`` it stays out of the way of any other run, but for one thing: a check that
needs a host is an error, so that it can never judge the developer's own machine. Heavy modules load
only when needed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

from pytest_nixos.errors import NixosError
from pytest_nixos.plugin.plain_import import forget_unloaded
from pytest_nixos.plugin.settings.declared_options import add_options, any_given

if TYPE_CHECKING:
    from pytest_nixos.nix.flakes import Flakes
    from pytest_nixos.plugin.settings.options import Settings
    from pytest_nixos.plugin.watch.notes import WatchNotes

__all__: list[str] = []

MARKERS = (
    "nixos_control(id): the control of the catalogue that this test judges",
    "nixos_hosts(*globs): run only for hosts whose name matches one of the globs",
    "nixos_requires(*places): run only where the machine is one of: vm, container, bare-metal, boot-loader (a VM with one)",
    "nixos_rests_on(*subjects): what has to work for this test to judge its control, as unit:sshd.service; a failure is the echo of a finding that blames it",
    "nixos_last_look(*, waits=False): runs when the tests that leave the machine as it is have run, and after those that wait there",
    "nixos_generation(*, make): the test will build a changed generation of its host, whose module make(host_config, place) returns as text; it is built while other tests run",
    "nixos_destructive: changes the machine; runs after the other tests of its host",
)
_CHECKS = "pytest_nixos.checks."


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare options and ini settings."""
    add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare the hooks that other plugins may implement."""
    from pytest_nixos.plugin import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    """Declare markers; where hosts are given, register what tests them."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    try:
        if not (any_given(config) and _tests_hosts(config)):
            _stay_out(config)
    except NixosError as err:
        from pytest_nixos.local.text import printable_lines

        raise pytest.UsageError(printable_lines(str(err))) from err


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """With ``--nixos-watch`` let processes of their own do the runs, one after each change; with
    ``--nixos-keep`` let one that can outlive this one do the run.
    """
    if config.option.help or config.option.collectonly:
        return None
    if config.getoption("nixos_watch"):
        from pytest_nixos.plugin.watch.loop import in_watched_session, watch

        return None if in_watched_session() else watch(config)
    if not _keeps_machines(config):
        return None
    from pytest_nixos.plugin.machines.kept import fork_run

    return fork_run(config)


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_cmdline_main")
def pytest_nixos_hold(
    config: pytest.Config,
) -> Generator[None, int | pytest.ExitCode | None, int | pytest.ExitCode | None]:
    """In a process that does a run for another one, hold what is kept; it does not return."""
    status: int | pytest.ExitCode | BaseException | None
    try:
        status = yield
    except BaseException as err:
        if not _holds(config):
            raise
        status = err
    if _holds(config):
        from pytest_nixos.plugin.machines.kept import KEPT, hold

        hold(config.stash[KEPT], status)
    assert not isinstance(status, BaseException)
    return status


def _holds(config: pytest.Config) -> bool:
    kept = sys.modules.get("pytest_nixos.plugin.machines.kept")
    return kept is not None and kept.KEPT in config.stash


def _keeps_machines(config: pytest.Config) -> bool:
    """Whether machines may be left running: where somebody wants it, in this very process."""
    asked = config.getoption("nixos_keep") or config.getini("nixos_keep")
    if asked == "never" or not any_given(config):
        return False
    from pytest_nixos.plugin.machines.kept import refusal

    # xdist's workers have the machines, and end with the run.
    workers = config.getoption("numprocesses", None) or config.getoption("tx", None)
    return not (hasattr(config, "workerinput") or workers or refusal(os.environ))


def _tests_hosts(config: pytest.Config) -> bool:
    from pytest_nixos.local.garbage import kept_until_the_end

    with kept_until_the_end():
        return _registered(config)


def _registered(config: pytest.Config) -> bool:
    """Read the settings, and register what tests hosts where they name any."""
    forget_unloaded()
    from pytest_nixos.plugin.settings.options import Settings
    from pytest_nixos.plugin.settings.settings_source import refuse_settings_of_others

    refuse_settings_of_others(config)
    settings = Settings.from_config(config)
    if not settings.active or _lists_fixtures(config):
        return False
    flakes = _flakes(config, settings)
    from pytest_nixos.plugin.run_hooks import activate

    notes = _notes_of_watched_session()
    if notes is not None:
        settings = settings.without_reports()
    activate(config, settings, flakes, notes=notes)
    if notes is not None:
        from pytest_nixos.plugin.watch.affected import WatchedRun

        config.pluginmanager.register(WatchedRun(notes), "nixos-watched-run")
    return True


def _flakes(config: pytest.Config, settings: Settings) -> Flakes | None:
    """Return the flakes of the run, ``None`` in a worker of xdist, which is sent them."""
    if hasattr(config, "workerinput"):
        return None
    from pytest_nixos.plugin.settings.flakes import ask_ahead, flakes_of

    flakes = flakes_of(settings)
    if not (config.option.collectonly or config.getoption("tx", None)):
        ask_ahead(flakes, settings)
    return flakes


def _notes_of_watched_session() -> WatchNotes | None:
    """Return the notes of the session that this run is of; what it starts itself is not."""
    from pytest_nixos.plugin.watch.notes import VARIABLE, WatchNotes

    said = os.environ.pop(VARIABLE, "")
    return WatchNotes.parse(said) if said else None


def _stay_out(config: pytest.Config) -> None:
    if _lists_fixtures(config) or config.option.setupplan:
        # Whoever reads what there is runs nothing.
        from pytest_nixos.plugin.run_hooks import register_fixtures

        register_fixtures(config)
    else:
        config.pluginmanager.register(WithoutHosts(config), "nixos-without-hosts")


class WithoutHosts:
    """Registered where no host is given: a check that needs one is an error, and the other tests
    of the run are left alone.

    testinfra's ``host`` is this machine where nobody names another. Beside checks of ours, or in a
    flake, that is not what a test means by it: there it has to be asked for.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._of_a_flake = any_given(config) or (config.rootpath / "flake.nix").is_file()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """See whether the tests are those of hosts, before any is deselected."""
        self._of_a_flake = self._of_a_flake or any(map(_needs_host, items))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Stop before a check could run against the developer's own machine."""
        this_machine = self._of_a_flake and _is_of_this_machine(item)
        if this_machine or _needs_host(item):
            raise pytest.fail.Exception(
                "needs a host: --nixos-flake REF#HOST, or nixos_flake in pytest's ini file"
                + ("; to test this machine: --hosts=local://" if this_machine else ""),
                pytrace=False,
            )


def _is_of_this_machine(item: pytest.Item) -> bool:
    """Whether testinfra gives the test the machine that pytest runs on, since nothing names one."""
    options = item.config.option
    return (
        "_testinfra_host" in getattr(item, "fixturenames", ())
        and getattr(options, "hosts", None) is None
        and getattr(options, "connection", None) is None
        and not hasattr(getattr(item, "module", None), "testinfra_hosts")
    )


def _lists_fixtures(config: pytest.Config) -> bool:
    return bool(config.option.showfixtures or config.option.show_fixtures_per_test)


def _needs_host(item: pytest.Item) -> bool:
    module = getattr(item, "module", None)
    return (
        getattr(module, "__name__", "").startswith(_CHECKS)
        or any(name.startswith("nixos_") for name in getattr(item, "fixturenames", ()))
        or any(marker.name.startswith("nixos_") for marker in item.iter_markers())
    )
