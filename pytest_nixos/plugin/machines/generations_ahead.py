"""Changed generations that checks will ask for, evaluated and built while other tests of their host
run.

What runs meanwhile is measured: it goes first, and nothing is begun where memory for an evaluation is
not there. Whatever goes wrong is forgotten here; the generation is then
built when its check asks for it, which tells.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping

import pytest

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import NixosError
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.nix.memory import EvaluationMemory
from pytest_nixos.nix.schedule import Room
from pytest_nixos.plugin.collect import host_key_of
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.stash import SESSION

__all__ = ["GenerationsAhead"]

_MARKER = "nixos_generation"
# A third of the share of processor time that a machine gets. It cannot be taken back where a check waits, so
# it must be enough on a machine that is busy.
_LESS_URGENT = 5
MakeModule = Callable[[HostConfig, str], str]


class GenerationsAhead:
    """Hooks that begin to build when the first test with a host's machine has ended.

    :param room: what this machine has for evaluations.
    """

    def __init__(self, room: Room | None = None) -> None:
        self._room = room or Room.of_this_machine()
        self._wanted: dict[str, dict[MakeModule, None]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Learn which generations the tests of each host will ask for."""
        for item in session.items:
            marker, key = item.get_closest_marker(_MARKER), host_key_of(item)
            if marker is not None and key is not None:
                self._wanted.setdefault(key, {})[marker.kwargs["make"]] = None

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Begin for the host whose machine has come up by now."""
        session, key = item.config.stash[SESSION], host_key_of(item)
        if key not in self._wanted or session.changed_machines.of(key) is None:
            return
        makers = self._wanted.pop(key)
        is_late = item.get_closest_marker(_MARKER) is not None
        if not is_late and session.backend_name(key) in (BackendName.VM, BackendName.CONTAINER):
            work = threading.Thread(
                target=self._build,
                args=(session, key, makers),
                daemon=True,  # a Nix dies with the thread that started it
                name=f"nixos-generation-{key}",
            )
            work.start()

    def _build(self, session: NixosSession, key: str, makers: Mapping[MakeModule, None]) -> None:
        from pytest_nixos.generations import Delta
        from pytest_nixos.generations.nix_bridge import instantiate

        try:
            host, place = session.host_config(key), session.backend_name(key).place
            memory = EvaluationMemory(session.flakes.nix.settings.cache)
            if memory.estimated_mib(host.ref) > self._room.available_mib():
                return
            os.nice(_LESS_URGENT)  # of this thread alone, and of the programs that it starts
            for make in makers:
                change = Delta(make(host, place))
                derivation = instantiate(change, flakes=session.flakes, host=host)
                session.flakes.nix.build_ahead([derivation])
        except (NixosError, OSError):
            return
