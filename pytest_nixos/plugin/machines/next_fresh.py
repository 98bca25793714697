"""The next machine of a test's own, woken while the tests before it run, and stopped until it is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.local.memory import leaves_half_free
from pytest_nixos.plugin.collect import host_key_of, needs_fresh_clone
from pytest_nixos.plugin.machines.coming import ComingTests
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.machines.machine_ahead import MachineAhead
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.settings.declared_options import SnapshotUse

__all__ = ["NextFresh"]


class NextFresh:
    """Hooks that have a clone ready for the next test with a machine of its own: one at a time, and
    only while at least half of this machine's memory is free.
    """

    def __init__(self, session: NixosSession, *, progress: Progress, config: pytest.Config) -> None:
        self._session = session
        self._progress = progress
        self._config = config
        self._clone: MachineAhead | None = None
        self._after: Sequence[pytest.Item] = ()
        self._coming = ComingTests(config)
        # Of hosts that turned out to have no clones.
        self._none_of: set[str] = set()

    @classmethod
    def of(cls, session: NixosSession, *, progress: Progress, config: pytest.Config) -> Self | None:
        """Have clones ready in a run that may have some; ``None`` in any other."""
        settings = session.settings
        may = (
            session.recording is None
            and settings.upgrade_from is None
            and settings.snapshot is not SnapshotUse.OFF
            and settings.backend in (None, BackendName.VM)
        )
        if not may:
            return None
        ready = cls(session, progress=progress, config=config)
        config.pluginmanager.register(ready, "nixos-next-fresh")
        config.add_cleanup(ready.close)
        return ready

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn in which order tests run."""
        self._coming.learn(session)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, nextitem: pytest.Item | None) -> None:
        """See which tests come after this one."""
        self._after = self._coming.after(nextitem)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        """Begin once the test has its own machines, which come first."""
        key = next((host_key_of(item) for item in self._after if needs_fresh_clone(item)), None)
        if self._clone is not None and self._clone.key != key:
            self._clone.drop()
            self._clone = None
        if key is not None and self._clone is None and key not in self._none_of:
            self._clone = self._started(key)

    def take(self, key: str) -> Launch | None:
        """Hand over the clone of a host; ``None`` where there is none."""
        if self._clone is None or self._clone.key != key:
            return None
        launch = self._clone.take()
        self._clone = None  # Ctrl-C while it is waited for leaves it to be ended
        if launch is None:
            self._none_of.add(key)
        return launch

    def close(self) -> None:
        """End a clone that nobody took, and wait for that."""
        if self._clone is not None:
            self._clone.close()

    def _started(self, key: str) -> MachineAhead | None:
        host = self._session.entry(key).config
        if host is None or not leaves_half_free():
            return None
        # Beside a thread that works, Python is slow.
        known = host, self._session.pacer.now()
        return MachineAhead.begun(
            self._session,
            key,
            known=known,
            progress=self._progress,
            config=self._config,
            rests=True,
        )
