"""Under xdist: workers get the evaluated hosts, each host stays on one worker, and what a worker learned comes home."""

from __future__ import annotations

import base64
import pickle
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import SESSION

__all__ = ["Controller", "HostScheduling", "Worker", "has_workers", "is_worker", "received_session"]

_SESSION_KEY = "nixos_session"
_PHASES = "nixos_phases"
_STATES = "nixos_states"


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


def has_workers(config: pytest.Config) -> bool:
    """Whether this process is the one that controls xdist's workers, and runs no test itself."""
    return not is_worker(config) and bool(config.getoption("tx", None))


def received_session(config: pytest.Config) -> NixosSession | None:
    """Return the session that the controlling process opened, in a worker."""
    text = getattr(config, "workerinput", {}).get(_SESSION_KEY)
    if text is None:
        return None
    session = pickle.loads(base64.b64decode(text))  # noqa: S301 - from our own controlling process
    assert isinstance(session, NixosSession)
    return session


class Worker:
    """Hooks of a worker: it sends home what its machines were."""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Send home how long the machines took, and what an upgrade test saw."""
        nixos = session.config.stash.get(SESSION, None)
        if nixos is None:
            return
        output = session.config.workeroutput  # type: ignore[attr-defined]  # xdist's
        output[_PHASES] = {e.key: e.phases_s for e in nixos.entries}
        output[_STATES] = {e.key: e.state for e in nixos.entries if e.state}


class Controller:
    """Hooks of the controlling process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Hand the session to a worker before it starts."""
        session = node.config.stash[SESSION]
        node.workerinput[_SESSION_KEY] = base64.b64encode(pickle.dumps(session)).decode()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling:
        """Keep all checks of a host on one worker, so that each host boots once."""
        return HostScheduling(config, log)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Learn from a worker how long its machines took."""
        session = self._config.stash.get(SESSION, None)
        if session is None:
            return
        for key, phases in getattr(node, "workeroutput", {}).get(_PHASES, {}).items():
            session.entry(key).phases_s |= phases
        for key, state in getattr(node, "workeroutput", {}).get(_STATES, {}).items():
            session.entry(key).state = state


class HostScheduling(LoadScopeScheduling):
    """Tests of one host go to one worker; other tests go anywhere.

    A host whose VM has a snapshot is no reason to stay on one worker, because each clones it: there tests go by host and module, whose
    fixtures tell one story.
    """

    def _split_scope(self, nodeid: str) -> str:
        session: NixosSession = self.config.stash[SESSION]
        _, bracket, parameters = nodeid.rstrip("]").partition("[")
        matching = [
            key for key in session.host_keys if bracket and f"{parameters}-".startswith(f"{key}-")
        ]
        if not matching:
            return nodeid
        key = max(matching, key=len)
        if subject := session.entry(key).subject:
            return subject  # the stages of an upgrade test share one machine
        return f"{key}@{nodeid.partition('::')[0]}" if session.clones(key) else key
