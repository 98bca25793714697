"""Live hosts of a fleet: connected to and looked at ahead of their tests, several at once.

Tests run one after the other, and nearly all of a host's time is its answer: while one host is judged
the next ones answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Self

import msgspec

from pytest_nixos.errors import NixosError
from pytest_nixos.machine.base import Machine
from pytest_nixos.observe.store import Observations
from pytest_nixos.plugin.machines.launch import Launch

__all__ = ["LiveHosts", "Looked"]

_LINGER_S = 5.0


class _Visit(msgspec.Struct):
    """One host's connection, from its start to its end."""

    key: str
    ready: threading.Event = msgspec.field(default_factory=threading.Event)
    over: threading.Event = msgspec.field(default_factory=threading.Event)
    looked: Looked | None = None
    error: BaseException | None = None


class Looked(msgspec.Struct, frozen=True):
    """A live host that has been looked at.

    :param launch: decides what is kept of it.
    """

    machine: Machine
    observations: Observations
    launch: Launch


class LiveHosts:
    """Connections to live hosts, at most so many at once; a context manager that ends them all.

    A connection is held by a thread of its own from its start to its end: a process dies with the
    thread that started it. A host that cannot be reached costs nobody else anything but its turn.

    :param keys: of the hosts, in the order of their tests.
    :param at_once: connections that stand or are made at one time; one more where a test needs its
        host out of turn.
    :param launch: makes the way to one host.
    :param look: asks a host all that its controls look at.
    """

    def __init__(
        self,
        keys: Sequence[str],
        *,
        at_once: int,
        launch: Callable[[str], Launch],
        look: Callable[[str, Machine, Observations], None],
    ) -> None:
        self._visits = {key: _Visit(key) for key in keys}
        self._at_once = at_once
        self._launch = launch
        self._look = look
        self._turn = threading.Condition()
        self._waiting = list(keys)
        self._open: dict[str, _Visit] = {}
        self._wanted: set[str] = set()
        self._closing = False

    def __enter__(self) -> Self:
        for visit in self._visits.values():
            threading.Thread(
                target=self._run, args=(visit,), daemon=True, name=f"nixos-{visit.key}"
            ).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        for visit in self._visits.values():
            visit.over.set()
        # One that is still connecting goes with this process.
        with self._turn:
            self._turn.wait_for(lambda: not self._open, timeout=_LINGER_S)

    def has(self, key: str) -> bool:
        """Whether a host is or will be connected to here."""
        return key in self._visits

    @contextmanager
    def visit(self, key: str) -> Iterator[Looked]:
        """Wait until a host has been looked at, and end its connection afterwards.

        :raises NixosError: if it cannot be reached.
        """
        visit = self._visits.pop(key)
        with self._turn:
            self._wanted.add(key)
            self._turn.notify_all()
        try:
            visit.ready.wait()
            if visit.error is not None:
                raise visit.error
            assert visit.looked is not None
            yield visit.looked
        finally:
            visit.over.set()

    def _run(self, visit: _Visit) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._closing or self._may_begin(visit.key))
            if self._closing:
                return
            self._waiting.remove(visit.key)
            self._open[visit.key] = visit
            self._turn.notify_all()
        try:
            self._connect(visit)
        finally:
            visit.ready.set()
            with self._turn:
                del self._open[visit.key]
                self._turn.notify_all()

    def _may_begin(self, key: str) -> bool:
        if len(self._open) < self._at_once:
            return key in self._wanted or self._waiting[0] == key
        # Out of turn; but one that is about to end makes room for it.
        return key in self._wanted and not any(v.over.is_set() for v in self._open.values())

    def _connect(self, visit: _Visit) -> None:
        try:
            launch = self._launch(visit.key)
            with launch as machine:
                observations = Observations(machine)
                # What goes wrong here is asked again by the first control, which tells it.
                with suppress(NixosError):
                    self._look(visit.key, machine, observations)
                visit.looked = Looked(machine, observations, launch)
                visit.ready.set()
                visit.over.wait()
        except BaseException as err:  # noqa: BLE001 - raised again in visit(), where the test waits
            visit.error = visit.error or err
