"""The machine of a run that names one host, on its way up while pytest still collects: a clone, of
a host whose evaluation an earlier run has kept.
"""

from __future__ import annotations

import sys
import threading
from typing import Any, Self

from pytest_nixos.backend_name import BackendName
from pytest_nixos.local.pace import Pace
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.machines.machine_ahead import MachineAhead
from pytest_nixos.plugin.progress import Progress
from pytest_nixos.plugin.session import NixosSession
from pytest_nixos.plugin.settings.declared_options import SnapshotUse

__all__ = ["HeadStart"]

# How long Python lets the thread that collects go on where another one waits for its turn: 5 ms by itself, which the
# start of a clone would wait after each of its system calls and messages to QEMU.
_TURN_S = 0.0005


class HeadStart:
    """One machine that is started ahead.

    :param key: of its host.
    """

    def __init__(self, session: NixosSession, key: str, *, progress: Progress, config: Any) -> None:
        self._session = session
        self._recalled = threading.Event()
        self._pace: Pace = Pace()
        self._paced = threading.Event()
        self._clone = MachineAhead(
            session, key, progress=progress, config=config, known=self._known
        )

    @classmethod
    def of(cls, session: NixosSession, *, progress: Progress, config: Any) -> Self | None:
        """Begin where a run has one host that may have a snapshot; ``None`` for any other."""
        settings, keys = session.settings, session.host_keys
        may = (
            len(keys) == 1
            and session.recording is None
            and settings.upgrade_from is None
            and settings.snapshot is SnapshotUse.AUTO
            and settings.backend in (None, BackendName.VM)
            and not config.option.collectonly
        )
        if not may:
            return None
        ahead = cls(session, keys[0], progress=progress, config=config)
        turn_s = sys.getswitchinterval()
        config.add_cleanup(lambda: sys.setswitchinterval(turn_s))
        sys.setswitchinterval(_TURN_S)
        ahead._clone.start()
        # Measured here while that thread waits for Nix or for this: beside a thread that works, Python is slow.
        ahead._pace = session.pacer.renew()
        ahead._paced.set()
        config.add_cleanup(ahead._clone.close)
        return ahead

    def wait_recalled(self) -> None:
        """Wait until the flake has been asked, so that nobody asks it twice."""
        self._recalled.wait()

    def keep_for(self, keys: tuple[str, ...]) -> None:
        """End the machine where none of the hosts that need one is its host."""
        if self._clone.key not in keys:
            self._clone.drop()

    def take(self, key: str) -> Launch | None:
        """Wait for the machine of a host and hand it over, once; ``None`` where there is none."""
        return self._clone.take() if key == self._clone.key else None

    def _known(self) -> tuple[HostConfig, Pace] | None:
        try:
            host = self._session.recalled(self._clone.key)
        finally:
            self._recalled.set()
        self._paced.wait()
        return None if host is None else (host, self._pace)
