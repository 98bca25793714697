"""In a run of a watched session: judge only what a change can affect, changed controls first, and
note what was judged.

A host whose every declared fact and whose machine are what they were has nothing new to say. Only
what reads the flake's own source is judged again, and tests that may look further than at their
host.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pytest

from pytest_nixos.local.process import die_with_parent
from pytest_nixos.plugin import collect, suites
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import PROGRESS, SESSION
from pytest_nixos.plugin.watch.notes import Before, HostPrint, WatchNotes
from pytest_nixos.plugin.workers.workers import has_workers
from pytest_nixos.standards.load import option_paths

__all__ = ["WatchedRun", "select_affected"]

_SOURCE_KINDS = frozenset({"flake-lock", "source-scan"})
# A cluster's other members are hosts of the flake too.
_SOURCE_FIXTURES = frozenset({"nixos_flake", "nixos_cluster"})
# These reach other hosts, and what the flake says beside its hosts.
_FAR_FIXTURES = frozenset({"nixos_flake", "nixos_cluster", "nixos_generations", "nixos_upgrade"})
# Nothing else in a flake is made for Nix alone.
_FOR_NIX = (".nix", "flake.lock", "logs/HEAD")
# Read by pytest or by us in every run, whichever test is judged.
_FOR_ALL = (".toml", ".ini", ".cfg", "conftest.py")


class WatchedRun:
    """Keeps the notes of one run; a plugin of the process that controls it."""

    def __init__(self, notes: WatchNotes) -> None:
        die_with_parent(notes.watching_pid)
        self._notes = notes
        self._selected: set[str] | None = None
        self._reported: set[str] = set()
        self._failed: set[str] = set()
        self._collected = True

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Notice what could not be collected."""
        self._collected = self._collected and not report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Note what was selected, once nothing can refuse the run any more."""
        self._selected = {*(self._selected or ()), *(item.nodeid for item in session.items)}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: object, ids: Sequence[str]) -> None:  # noqa: ARG002 - the hook's
        """Note what the workers selected."""
        self._selected = {*(self._selected or ()), *ids}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how an item ended."""
        if report.failed:
            self._failed.add(report.nodeid)
        if report.when == "teardown":
            self._reported.add(report.nodeid)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        """Say what workers, who say nothing, left out."""
        nixos = config.stash.get(SESSION, None)
        before = None if nixos is None else nixos.before
        if before is None or self._selected is None or not has_workers(config):
            return
        stands = before.judged - self._selected
        told = _told(len(self._selected), len(stands), len(stands & before.failed))
        terminalreporter.write_line(f"nixos: {told}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Leave notes, unless nothing was judged; what was to be judged and was not stays owed."""
        nixos = session.config.stash.get(SESSION, None)
        if nixos is None or self._selected is None or not self._collected:
            return
        before = nixos.before
        judged = ((before.judged if before else frozenset()) - self._selected) | self._reported
        failed = ((before.failed if before else frozenset()) - self._selected) | self._failed
        hosts = {e.key: HostPrint.of(e.config) for e in nixos.entries if e.config is not None}
        self._notes.write(Before(judged=judged, failed=failed & judged, hosts=hosts))


def select_affected(
    config: pytest.Config,
    items: list[pytest.Item],
    session: NixosSession,
    packages: suites.SuitePackages,
    *,
    tells: bool,
) -> None:
    """Drop what the changes since the run before cannot affect, and put first what reads a
    changed option, then what failed.

    :param tells: say what was dropped.
    """
    before = session.before
    if before is None:
        return
    choice = _Choice(before, session, packages, modules={str(item.path) for item in items})
    affected = [choice.affects(item) for item in items]
    dropped = [item for item, stays in zip(items, affected, strict=True) if not stays]
    items[:] = [item for item, stays in zip(items, affected, strict=True) if stays]
    collect.order(items, session, first=choice.turn)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
    if tells:
        progress = config.stash[PROGRESS]
        with progress.speaking():
            for line in choice.told(items, dropped):
                progress.say(line)


class _Choice:
    """Decides for each item whether the changes since the run before can affect it.

    :param modules: files of the items themselves.
    """

    def __init__(
        self,
        before: Before,
        session: NixosSession,
        packages: suites.SuitePackages,
        *,
        modules: Collection[str],
    ) -> None:
        self._before = before
        self._session = session
        self._packages = packages
        self._changed = before.changed
        others = [name for name in before.changed if not name.endswith(_FOR_NIX)]
        named = {
            str(path) for path in (session.settings.waivers, session.settings.baseline) if path
        }
        self._for_all = any(
            name in named
            or name.endswith(_FOR_ALL)
            or (name.endswith(".py") and (name not in modules or _is_imported(name, modules)))
            for name in others
        )
        #: What tests of one's own may read as data.
        self._data = [name for name in others if not name.endswith(".py")]
        self._prints = {
            entry.key: HostPrint.of(entry.config)
            for entry in session.entries
            if entry.config is not None
        }

    def affects(self, item: pytest.Item) -> bool:
        """Whether an item may end in another way than before."""
        if self._for_all or item.nodeid not in self._before.judged:
            return True
        key = collect.host_key_of(item)
        if key is not None and not self._is_same(key):
            return True
        if self._packages.contains(item.path):
            return self._reads_source(item)
        # Without a host a test may look at anything, what is made for Nix included.
        far = key is None or not _FAR_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
        return far or bool(self._data) or str(item.path) in self._changed

    def turn(self, item: pytest.Item) -> int:
        """Return 0 for what reads a changed option, 1 for what failed before, else 2."""
        key = collect.host_key_of(item)
        control = collect.control_of(item, self._session)
        then = self._before.hosts.get(key or "")
        if key in self._prints and then is not None and control is not None:
            changed = self._prints[key].changed_options(then)
            if not changed.isdisjoint(option_paths([control])):
                return 0
        return 1 if item.nodeid in self._before.failed else 2

    def told(self, items: Sequence[pytest.Item], dropped: Sequence[pytest.Item]) -> Iterator[str]:
        """Say for each host what is judged again, and what stands as it was."""
        again = Counter(map(collect.host_key_of, items))
        stands = Counter(map(collect.host_key_of, dropped))
        failed = Counter(
            collect.host_key_of(item) for item in dropped if item.nodeid in self._before.failed
        )
        for key in dict.fromkeys([*again, *stands]):
            same = key is None or self._is_same(key)
            what = "the system and all that is declared are as before" if same else "has changed"
            counts = _told(again[key], stands[key], failed[key])
            yield f"{key or 'tests without a host'}: {what}: {counts}"

    def _is_same(self, key: str) -> bool:
        then = self._before.hosts.get(key)
        return then is not None and self._prints.get(key) == then

    def _reads_source(self, item: pytest.Item) -> bool:
        control = collect.control_of(item, self._session)
        kind = control.observed.kind if control is not None and control.observed else ""
        fixtures = getattr(item, "fixturenames", ())
        return kind in _SOURCE_KINDS or not _SOURCE_FIXTURES.isdisjoint(fixtures)


def _is_imported(name: str, modules: Collection[str]) -> bool:
    """Whether the text of another test module, or of what these import from beside them, names a test
    module.
    """
    loaded = {getattr(module, "__file__", None) for module in [*sys.modules.values()]}
    roots = {Path(module).parent for module in modules}
    beside = {file for file in loaded if file and not roots.isdisjoint(Path(file).parents)}
    word = re.compile(rf"\b{re.escape(Path(name).stem)}\b")
    texts = (Path(file) for file in ({*modules} | beside) - {name} if file.endswith(".py"))
    return any(word.search(text.read_text(errors="replace")) for text in texts)


def _told(again: int, stand: int, failed: int) -> str:
    """Say how many items are judged again, how many stand, and how many of these failed before."""
    runs = f"{again} run again" if again else "nothing runs again"
    rest = f", {stand} stand as they were" if stand else ""
    return runs + rest + (f" ({failed} of them failed)" if failed else "")
