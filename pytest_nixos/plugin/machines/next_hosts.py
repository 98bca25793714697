"""Containers of a run's next hosts, which boot while the tests before them run, and those that are
done with, which end meanwhile.

What measures time is left alone: nothing is begun beside a test that asks how slow this machine is,
nor before one, and a host with a budget for its boot boots alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Self

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.local.memory import leaves_half_free
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.memory_needs import expected_mib, machines_at_once
from pytest_nixos.plugin.collect import host_key_of, judges_shared_machine
from pytest_nixos.plugin.machines.coming import ComingTests
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.machines.machine_ahead import MachineAhead
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.session import NixosSession

__all__ = ["NextHosts"]

_MEASURES = "nixos_slowness"
_SAID = "passthru.pytest-nixos"
_BUDGET = "bootBudget"


class NextHosts:
    """Hooks that have a container ready for each next host: as many boot or wait at one time as this
    machine has processors, and only while half of its memory stays free.

    :param needs_machine: whether a test starts its host's machine, as far as that is known.
    """

    def __init__(
        self,
        session: NixosSession,
        *,
        progress: Progress,
        config: pytest.Config,
        needs_machine: Callable[[pytest.Item, NixosSession], bool],
    ) -> None:
        self._session = session
        self._progress = progress
        self._config = config
        self._needs_machine = needs_machine
        self._at_once = max(1, len(os.sched_getaffinity(0)) // machines_at_once())
        self._ahead: dict[str, MachineAhead] = {}
        self._begun: set[str] = set()
        self._ending = ThreadPoolExecutor(self._at_once, thread_name_prefix="nixos-ending")
        self._ends: list[Future[None]] = []
        self._order = ComingTests(config)
        # Hosts of which a test judges times.
        self._timed: set[str | None] = set()
        self._coming: Sequence[pytest.Item] = ()

    @classmethod
    def of(
        cls,
        session: NixosSession,
        *,
        progress: Progress,
        config: pytest.Config,
        needs_machine: Callable[[pytest.Item, NixosSession], bool],
    ) -> Self | None:
        """Have containers ready in a run that may have several; ``None`` in any other."""
        settings = session.settings
        may = (
            len(session.host_keys) > 1
            and session.recording is None
            and settings.upgrade_from is None
            and settings.backend in (None, BackendName.CONTAINER)
        )
        if not may:
            return None
        hosts = cls(session, progress=progress, config=config, needs_machine=needs_machine)
        config.pluginmanager.register(hosts, "nixos-next-hosts")
        config.add_cleanup(hosts.close)
        return hosts

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn in which order tests run."""
        self._order.learn(session)
        self._timed = {host_key_of(item) for item in session.items if _measures(item)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """See which tests come, and begin beside the boot of this one's host."""
        self._coming = (item, *self._order.after(nextitem))
        if self._is_measured(item):
            self._wait_for_ends()
        self._begin()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        """Begin in the place of the test's own host, which is up."""
        self._begin()

    def take(self, key: str) -> Launch | None:
        """Wait for the container of a host and hand it over; ``None`` where none was begun.

        :raises NixosError: if it has failed.
        """
        ahead = self._ahead.get(key)
        if ahead is None:
            return None
        try:
            return ahead.take()
        finally:
            if ahead.is_over:  # Ctrl-C may have come before
                del self._ahead[key]

    @contextmanager
    def lent(self, launch: Launch) -> Iterator[Machine]:
        """Yield the machine of a launch; a container ends while the tests go on."""
        with ExitStack() as stack:
            machine = stack.enter_context(launch)
            try:
                yield machine
            finally:
                if machine.backend.name is BackendName.CONTAINER:
                    self._ends.append(self._ending.submit(stack.pop_all().close))

    def close(self) -> None:
        """End what nobody took, and wait until all have ended."""
        for ahead in self._ahead.values():
            ahead.drop()
        for ahead in self._ahead.values():
            ahead.close()
        self._wait_for_ends()

    def _wait_for_ends(self) -> None:
        while self._ends:
            self._ends.pop().result()

    def _begin(self) -> None:
        own = host_key_of(self._coming[0])
        if host_key_of(self._coming[-1]) == own:
            return  # the tests of a host stand together
        booting = 0 if own is None or self._session.changed_machines.of(own) else 1
        for key in self._next_keys(own):
            if len(self._ahead) + booting >= self._at_once:
                return
            if key not in self._begun and self._has_room(key):
                self._begun.add(key)
                self._ahead[key] = self._started(key)

    def _next_keys(self, own: str | None) -> Iterator[str]:
        """Go through the hosts whose containers may boot by now, in the order of their tests."""
        for item in self._coming:
            if self._is_measured(item):
                return
            key = host_key_of(item)
            if key is None or key == own:
                continue
            if self._is_container(key) and self._wants_machine(item):
                yield key

    def _is_measured(self, item: pytest.Item) -> bool:
        """Whether a test judges a time: its own, or that of the boot which it begins."""
        key = host_key_of(item)
        if _measures(item) or key is None:
            return _measures(item)
        host = self._session.entry(key).config
        if host is None or key not in self._timed or self._session.changed_machines.of(key):
            return False
        said = host.option(_SAID).value
        return isinstance(said, dict) and _BUDGET in said

    def _wants_machine(self, item: pytest.Item) -> bool:
        return judges_shared_machine(item) and self._needs_machine(item, self._session)

    def _is_container(self, key: str) -> bool:
        entry = self._session.entry(key)
        container = BackendName.CONTAINER
        return entry.config is not None and self._session.backend_name(key) is container

    def _has_room(self, key: str) -> bool:
        hosts = [self._session.host_config(one) for one in (*self._ahead, key)]
        return leaves_half_free(sum(map(expected_mib, hosts)) << 20)

    def _started(self, key: str) -> MachineAhead:
        # Measured here, since Python is slow beside a thread that works, and told once for all.
        pace = self._session.pacer.now()
        if news := self._session.pace_news(pace):
            with self._progress.speaking():
                self._progress.say(news)
        return MachineAhead.begun(
            self._session,
            key,
            known=(self._session.host_config(key), pace),
            progress=self._progress,
            config=self._config,
            boots=True,
        )


def _measures(item: pytest.Item) -> bool:
    return _MEASURES in getattr(item, "fixturenames", ())
