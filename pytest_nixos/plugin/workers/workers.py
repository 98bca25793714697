"""Under xdist: workers get the evaluated hosts, each host stays on one worker, and what a worker
learned comes home.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import pickle
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.plugin import collect
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import SESSION

if TYPE_CHECKING:
    from pytest_nixos.plugin.workers.host_scheduling import HostScheduling

__all__ = [
    "Controller",
    "Planned",
    "Worker",
    "has_workers",
    "is_worker",
    "received_session",
]

_SESSION_KEY = "nixos_session"
_PLAN = "nixos_plan"
_STORE = "nixos_store"
_PHASES = "nixos_phases"
_STATES = "nixos_states"
_CIRCUMSTANCES = "nixos_circumstances"
_SCREENS = "nixos_screens"


class Planned(NamedTuple):
    """One item that judges a control."""

    node_id: str
    control: str
    host: str


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


def has_workers(config: pytest.Config) -> bool:
    """Whether this process is the one that controls xdist's workers, and runs no test itself."""
    return not is_worker(config) and bool(config.getoption("tx", None))


def received_session(config: pytest.Config) -> NixosSession | None:
    """Return the session that the controlling process opened, in a worker."""
    # It is as large as the session again, and pytest would keep it.
    text = getattr(config, "workerinput", {}).pop(_SESSION_KEY, None)
    if text is None:
        return None
    session = pickle.loads(base64.b64decode(text))  # noqa: S301 - from our own controlling process
    assert isinstance(session, NixosSession)
    if config.workerinput[_STORE] != _this_store():  # type: ignore[attr-defined]  # xdist's
        session.came_from_elsewhere()
    return session


class Worker:
    """Hooks of a worker: it says what there is to judge, and sends home what its machines were."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Leave a list of what there is to judge: should this process die, nobody else knows; let go
        of the items that were deselected.
        """
        self._forget_what_is_shown()
        gc.collect()
        nixos = session.config.stash[SESSION]
        planned = [
            Planned(item.nodeid, control.id, key)
            for item in session.items
            if (key := collect.host_key_of(item)) is not None
            and (control := collect.control_of(item, nixos)) is not None
        ]
        path = Path(session.config.workerinput[_PLAN])  # type: ignore[attr-defined]  # xdist's
        if not path.parent.is_dir():
            return  # the controlling process is on another machine
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(planned), encoding="utf-8")
        draft.replace(path)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        """Let go of a report that has been sent home: pytest's terminal, which nobody sees here,
        would keep it to the end.
        """
        result = yield
        self._forget_what_is_shown()
        return result

    def _forget_what_is_shown(self) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.stats.clear()

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send home how long the machines took, and what an upgrade test saw."""
        nixos = session.config.stash.get(SESSION, None)
        if nixos is None:
            return
        output = session.config.workeroutput  # type: ignore[attr-defined]  # xdist's
        output[_PHASES] = {e.key: e.phases_s for e in nixos.entries}
        output[_CIRCUMSTANCES] = {e.key: e.circumstances for e in nixos.entries}
        output[_SCREENS] = {e.key: e.screens for e in nixos.entries}
        output[_STATES] = {e.key: e.state for e in nixos.entries if e.state}


class Controller:
    """Hooks of the controlling process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._stack = ExitStack()
        self._plan: Path | None = None
        config.add_cleanup(self._stack.close)
        self.deaths: list[str] = []

    @property
    def planned(self) -> tuple[Planned, ...]:
        """What there was to judge; nothing before a worker has collected."""
        if self._plan is None or not self._plan.exists():
            return ()
        return tuple(Planned(*row) for row in json.loads(self._plan.read_text(encoding="utf-8")))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notice the report that xdist makes of an item whose worker died."""
        if report.when not in ("setup", "call", "teardown"):
            self.deaths.append(str(report.longrepr))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Hand the session to a worker before it starts."""
        session = node.config.stash[SESSION]
        if self._plan is None:
            # Swept by a later session where this one is killed.
            self._plan = self._stack.enter_context(run_directory()).path / "planned.json"
        node.workerinput[_PLAN] = str(self._plan)
        node.workerinput[_STORE] = _this_store()
        node.workerinput[_SESSION_KEY] = base64.b64encode(pickle.dumps(session)).decode()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> HostScheduling:
        """Keep all checks of a host on one worker, so that each host boots once."""
        from pytest_nixos.plugin.workers.host_scheduling import HostScheduling

        return HostScheduling(config, log)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Learn from a worker how long its machines took."""
        session = self._config.stash.get(SESSION, None)
        if session is None:
            return
        for key, phases in getattr(node, "workeroutput", {}).get(_PHASES, {}).items():
            session.entry(key).phases_s |= phases
        for key, found in getattr(node, "workeroutput", {}).get(_CIRCUMSTANCES, {}).items():
            session.entry(key).circumstances |= found
        for key, screens in getattr(node, "workeroutput", {}).get(_SCREENS, {}).items():
            session.entry(key).screens += screens
        for key, state in getattr(node, "workeroutput", {}).get(_STATES, {}).items():
            session.entry(key).state = state


def _this_store() -> str:
    """Return what this machine's store is known by; a worker that ssh started may have another."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        store = Path("/nix/store").stat()
    except OSError:
        return ""
    return f"{boot} {store.st_dev}:{store.st_ino}"
