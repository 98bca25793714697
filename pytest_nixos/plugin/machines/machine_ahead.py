"""A machine on its way up before a test has asked for it.

A VM is started so from its snapshot alone: that costs little where no test turns out to want it.
Whatever goes wrong with that is forgotten here; the machine is then started when a test asks for it,
which tells.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from pytest_nixos.backend_name import BackendName
from pytest_nixos.errors import NixosError
from pytest_nixos.local.pace import Pace
from pytest_nixos.local.timing import Deadline, Recall, Recalled
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.capabilities import Resting
from pytest_nixos.nix.config.host_facts import HostConfig
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.progress import HeldProgress, Progress
from pytest_nixos.plugin.session import NixosSession

__all__ = ["MachineAhead"]

# What is under way on this machine (a command of Nix or QEMU's tools) comes to its end first.
_LINGER_S = 10.0
_REST_S = 60.0


class MachineAhead:
    """One machine that is started in a thread of its own, and taken once or ended.

    :param key: of its host.
    :param known: called in that thread for what the host is and how slow this machine is, ``None``
        where there is nothing to start.
    :param rests: whether it is stopped until it is taken.
    :param boots: whether it is a container, which boots: what goes wrong is told by who takes it, since
        trying again would fail once more.
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
        boots: bool = False,
    ) -> None:
        self.key = key
        self._session = session
        self._held = HeldProgress(progress)
        self._config = config
        self._known = known
        self._rests = rests
        self._boots = boots
        self._lock = threading.Lock()
        self._launch: Launch | None = None
        self._error: BaseException | None = None
        self._machine: Machine
        self._apart: NixosSession | None = None
        # Given when nobody wants the machine any more.
        self._unwanted = Recall()
        # Whoever waits for it wants it running.
        self._waited_for = threading.Event()
        # In place of joining the thread: a join that Ctrl-C interrupts takes the thread for ended.
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"nixos-ahead-{key}")

    @classmethod
    def begun(
        cls,
        session: NixosSession,
        key: str,
        *,
        known: tuple[HostConfig, Pace],
        progress: Progress,
        config: Any,
        rests: bool = False,
        boots: bool = False,
    ) -> Self:
        """Begin with a machine whose host and pace are known by now."""
        ahead = cls(
            session,
            key,
            progress=progress,
            config=config,
            known=lambda: known,
            rests=rests,
            boots=boots,
        )
        ahead.start()
        return ahead

    def start(self) -> None:
        """Begin; return at once."""
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it has started, or never will."""
        return self._over.is_set()

    def take(self) -> Launch | None:
        """Wait for the machine and hand it over, once; ``None`` where there is none.

        :raises NixosError: if it boots and has failed.
        """
        self._waited_for.set()
        if self._boots:
            self._held.release()
        self._over.wait()
        with self._lock:
            launch, self._launch = self._launch, None
        if self._error is not None:
            self._tell_session()
            raise self._error
        if launch is None:
            return None
        try:
            self._rouse(self._machine)
        except NixosError:
            launch.close()
            return None
        self._tell_session()
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

    def _tell_session(self) -> None:
        if self._apart is not None:
            self._session.take_over(self._apart, self.key)

    def _run(self) -> None:
        try:
            known = self._known()
            if known is not None and not self._unwanted.given and Path(known[0].output).exists():
                self._start(*known)
        except Recalled:
            return
        except BaseException as err:  # raised again in take(), or here
            if self._boots:
                self._error = err
            elif not isinstance(err, NixosError | OSError):
                raise
        finally:
            self._over.set()

    def _start(self, host: HostConfig, pace: Pace) -> None:
        self._apart = apart = self._session.apart(self.key, host, pace)
        foreign = host.system != apart.flake(self.key).system
        wanted = BackendName.CONTAINER if self._boots else BackendName.VM
        if foreign or apart.backend_name(self.key) is not wanted:
            return
        launch = Launch(
            apart,
            self.key,
            progress=self._held,
            config=self._config,
            tells=False,
            clone_only=not self._boots,
            recall=self._unwanted,
        )
        machine = launch.start()
        try:
            self._rest(machine)
        except BaseException:
            launch.close()
            raise
        with self._lock:
            self._machine = machine
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
