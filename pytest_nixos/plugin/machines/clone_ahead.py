"""A clone on its way up before a test has asked for it.

Only a clone of a snapshot is started so: it costs little where no test turns out to want it. Whatever
goes wrong is forgotten here; the machine is then started when a test asks for it, which tells.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import NixosError
from pytest_nixos.local.pace import Pace
from pytest_nixos.local.timing import Deadline, Recall, Recalled
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.capabilities import Resting
from pytest_nixos.nix.host_facts import HostConfig
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.progress import HeldProgress, Progress
from pytest_nixos.plugin.session import NixosSession

__all__ = ["CloneAhead"]

# What is under way on this machine (a command of Nix or QEMU's tools) comes to its end first.
_LINGER_S = 10.0
_REST_S = 60.0


class CloneAhead:
    """One clone that is started in a thread of its own, and taken once or ended.

    :param key: of its host.
    :param known: called in that thread for what the host is and how slow this machine is, ``None``
        where there is nothing to start.
    :param rests: whether it is stopped until it is taken.
    """

    def __init__(
        self,
        session: NixosSession,
        key: str,
        *,
        progress: Progress,
        config: Any,
        known: Callable[[], tuple[HostConfig, Pace] | None],
        rests: bool = False,
    ) -> None:
        self.key = key
        self._session = session
        self._held = HeldProgress(progress)
        self._config = config
        self._known = known
        self._rests = rests
        self._lock = threading.Lock()
        self._launch: Launch | None = None
        self._machine: Machine
        self._apart: NixosSession
        # Given when nobody wants the machine any more.
        self._unwanted = Recall()
        # Whoever waits for it wants it running.
        self._waited_for = threading.Event()
        # In place of joining the thread: a join that Ctrl-C interrupts takes the thread for ended.
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"nixos-ahead-{key}")

    def start(self) -> None:
        """Begin; return at once."""
        self._thread.start()

    def take(self) -> Launch | None:
        """Wait for the machine and hand it over, once; ``None`` where there is none."""
        self._waited_for.set()
        self._over.wait()
        with self._lock:
            launch, self._launch = self._launch, None
        if launch is None:
            return None
        try:
            self._rouse(self._machine)
        except NixosError:
            launch.close()
            return None
        self._session.take_over(self._apart, self.key)
        self._held.release()
        launch.belongs_to(self._session)
        return launch

    def drop(self) -> None:
        """End the machine where nobody took it."""
        with self._lock:
            self._unwanted.give()
            launch, self._launch = self._launch, None
        if launch is not None:
            launch.close()

    def close(self) -> None:
        """End the machine where nobody took it, and wait for that."""
        self.drop()
        self._over.wait(_LINGER_S)

    def _run(self) -> None:
        try:
            known = self._known()
            if known is not None and not self._unwanted.given and Path(known[0].output).exists():
                self._start(*known)
        except (NixosError, OSError, Recalled):
            return
        finally:
            self._over.set()

    def _start(self, host: HostConfig, pace: Pace) -> None:
        apart = self._session.apart(self.key, host, pace)
        foreign = host.system != apart.flake(self.key).system
        if foreign or apart.backend_name(self.key) is not BackendName.VM:
            return
        launch = Launch(
            apart,
            self.key,
            progress=self._held,
            config=self._config,
            tells=False,
            clone_only=True,
            recall=self._unwanted,
        )
        machine = launch.start()
        try:
            self._rest(machine)
        except BaseException:
            launch.close()
            raise
        with self._lock:
            self._apart, self._machine = apart, machine
            if not self._unwanted.given:
                self._launch = launch
                return
        launch.close()

    def _rest(self, machine: Machine) -> None:
        running = machine.running
        if self._rests and not self._waited_for.is_set() and isinstance(running, Resting):
            limit = Deadline.after(machine.pace.limit(_REST_S), recall=self._unwanted)
            running.rest(deadline=limit)

    def _rouse(self, machine: Machine) -> None:
        running = machine.running
        if isinstance(running, Resting):
            running.rouse(deadline=machine.deadline(_REST_S))
