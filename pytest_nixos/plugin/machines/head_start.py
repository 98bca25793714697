"""The machine of a run that names one host, on its way up while pytest still collects.

Only a clone of a snapshot is started so, and only of a host whose evaluation an earlier run has kept:
it costs little where no test turns out to want it. Whatever goes wrong is forgotten here; the
machine is then started when a test asks for it, which tells.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Self

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import NixosError
from pytest_nixos.local.pace import Pace
from pytest_nixos.local.timing import Recall, Recalled
from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.plugin.declared_options import SnapshotUse
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.progress import HeldProgress, Progress
from pytest_nixos.plugin.session import NixosSession

__all__ = ["HeadStart"]

# What is under way on this machine (a command of Nix or QEMU's tools) comes to its end first.
_LINGER_S = 10.0


class HeadStart:
    """One machine that is started ahead, in a thread of its own.

    :param key: of its host.
    """

    def __init__(self, session: NixosSession, key: str, *, progress: Progress, config: Any) -> None:
        self._session = session
        self._key = key
        self._held = HeldProgress(progress)
        self._config = config
        self._recalled = threading.Event()
        self._pace: Pace = Pace()
        self._paced = threading.Event()
        self._lock = threading.Lock()
        self._launch: Launch | None = None
        self._apart: NixosSession | None = None
        self._unwanted = False
        self._ending = Recall()
        # In place of joining the thread: a join that Ctrl-C interrupts takes the thread for ended.
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"nixos-ahead-{key}")

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
        ahead._thread.start()
        # Measured here while that thread waits for Nix: beside a thread that works, Python is slow.
        ahead._pace = session.pacer.renew()
        ahead._paced.set()
        config.add_cleanup(ahead.close)
        return ahead

    def wait_recalled(self) -> None:
        """Wait until the flake has been asked, so that nobody asks it twice."""
        self._recalled.wait()

    def keep_for(self, keys: tuple[str, ...]) -> None:
        """End the machine where none of the hosts that need one is its host."""
        if self._key not in keys:
            self._drop()

    def take(self, key: str) -> Launch | None:
        """Wait for the machine of a host and hand it over, once; ``None`` where there is none."""
        if key != self._key:
            return None
        self._over.wait()
        with self._lock:
            launch, self._launch = self._launch, None
        if launch is None or self._apart is None:
            return None
        self._session.take_over(self._apart, key)
        self._held.release()
        launch.belongs_to(self._session)
        return launch

    def close(self) -> None:
        """End the machine if nobody took it, and wait for that."""
        self._drop()
        self._over.wait(_LINGER_S)

    def _drop(self) -> None:
        with self._lock:
            self._unwanted = True
            self._ending.give()
            launch, self._launch = self._launch, None
        if launch is not None:
            launch.close()

    def _run(self) -> None:
        try:
            host = self._recall()
            self._paced.wait()
            if host is not None and not self._unwanted and Path(host.output).exists():
                self._start(host)
        except (NixosError, OSError, Recalled):
            return
        finally:
            self._over.set()

    def _recall(self) -> HostConfig | None:
        try:
            return self._session.recalled(self._key)
        finally:
            self._recalled.set()

    def _start(self, host: HostConfig) -> None:
        apart = self._session.apart(self._key, host, self._pace)
        foreign = host.system != apart.flake(self._key).system
        if foreign or apart.backend_name(self._key) is not BackendName.VM:
            return
        launch = Launch(
            apart,
            self._key,
            progress=self._held,
            config=self._config,
            tells=False,
            clone_only=True,
            recall=self._ending,
        )
        launch.start()
        with self._lock:
            self._apart = apart
            if not self._unwanted:
                self._launch = launch
                return
        launch.close()
