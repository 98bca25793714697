"""One spare from its start to its end: woken, stopped, handed over once, and ended when whoever took
it is gone, when nobody took it in time, or when somebody says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
from msgspec.structs import replace

from pytest_nixos.errors import NixosError
from pytest_nixos.local.dirs import cache_directory, make_private
from pytest_nixos.local.locks import hold_exclusive
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.door.door import CARD, SOCKET, Card
from pytest_nixos.machine.door.wire import receive, send
from pytest_nixos.machine.keeper.order import SpareOrder
from pytest_nixos.machine.spare.claim import spares
from pytest_nixos.machine.spare.handing import Handed, hand_over
from pytest_nixos.machine.spare.taken import ended_line
from pytest_nixos.machine.vm.backend import VmBackend
from pytest_nixos.machine.vm.running import VmRunning

__all__ = ["Keeper"]

_LOOK_S = 2.0
_VISIT_S = 5.0
_START_S = 300.0
_TURN_S = 15.0
_CHUNK = 1 << 12
# Of all hosts; each has its memory.
_MOST = 3
# What nearly every run asks first: emulated code is translated once.
_FIRST = "systemctl show --property=ActiveState --property=SubState '*' >/dev/null; cat /proc/mounts /proc/cmdline >/dev/null"


class _OverError(Exception):
    """Somebody has said that the spare is to end."""


class Keeper:
    """The process of one spare.

    :param order: which.
    :param backend: starts it; by default as the order says.
    """

    def __init__(self, order: SpareOrder, backend: VmBackend | None = None) -> None:
        self._order = order
        self._backend = backend or VmBackend(order.options)
        self._lock = threading.Lock()
        self._waits: tuple[Handed, tuple[int, ...]] | None = None
        self._taken = threading.Event()
        self._taker: socket.socket | None = None
        self._snapshot_s = 0.0
        self._card = Card.of(order.host, "vm", owner=order.owner or os.getpid())
        self._door = Path()

    def run(self) -> None:
        """Make the spare and stay until it has ended.

        :raises NixosError: if it cannot be made.
        :raises OSError: likewise.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _be_over)
        with contextlib.suppress(_OverError), contextlib.ExitStack() as stack:
            stack.callback(self._leave_taker)
            self._follow_owner()
            # First in, last out: whoever has it ended waits for its directory to go.
            self._door = stack.enter_context(run_directory()).path
            directory = stack.enter_context(run_directory()).path
            spec = self._spec(directory)
            key = self._backend.spare_key(spec)
            turn = stack.enter_context(contextlib.ExitStack())
            if not key or not self._has_turn(turn, key):
                return
            self._card = replace(self._card, spare=key, kept=True)
            self._open_door(stack)
            running = self._backend.clone(spec, deadline=Deadline.after(spec.pace.limit(_START_S)))
            stack.callback(running.stop)
            self._set_aside(running)
            self._wait(running)
            if self._taken.is_set():
                turn.close()
                self._serve(running)
            _ignore_signals()

    def _spec(self, directory: Path) -> MachineSpec:
        spec = replace(self._order.spec, run_dir=directory)
        if spec.secrets is None:
            return spec
        path = directory / spec.secrets.path.name
        path.touch(mode=0o600)
        path.write_bytes(self._order.secrets)
        return replace(spec, secrets=replace(spec.secrets, path=path))

    def _has_turn(self, stack: contextlib.ExitStack, key: str) -> bool:
        """Whether a spare of this host is wanted beside those that wait; one of another state of the
        host is ended.
        """
        directory = cache_directory("spares")
        make_private(directory)
        lock = directory / f"{hashlib.sha256(self._order.host.encode()).hexdigest()[:32]}.lock"

        def attempt() -> bool | None:
            with contextlib.ExitStack() as attempted:
                if hold_exclusive(attempted, lock):
                    stack.push(attempted.pop_all())
                    return True
            others = [door for door in spares() if door.card.host == self._order.host]
            if any(door.card.spare == key for door in others):
                return False
            for door in others:
                with contextlib.suppress(NixosError):
                    door.end()
            return None

        if not poll(attempt, deadline=Deadline.after(_TURN_S)):
            return False
        waiting = spares()
        for door in waiting[: max(0, len(waiting) - _MOST + 1)]:
            with contextlib.suppress(NixosError):
                door.end()
        return True

    def _set_aside(self, running: VmRunning) -> None:
        limit = Deadline.after(self._order.spec.pace.limit(_START_S))
        snapshot = running.restored_from
        assert snapshot is not None
        running.transport.run(_FIRST, deadline=limit)
        waits = running.set_aside(shown=len(snapshot.record.console), deadline=limit)
        with self._lock:
            self._snapshot_s = snapshot.record.saved_at_s
            self._waits = waits
            self._card = replace(self._card, waits=True)
            self._card.write(self._door)

    def _wait(self, running: VmRunning) -> None:
        """Wait until somebody takes the spare, or there is nothing to wait for any more."""
        end_s = time.monotonic() + self._order.limit_s
        while not self._taken.wait(_LOOK_S):
            with self._lock:
                over = time.monotonic() > end_s or not running.is_alive()
                if over and not self._taken.is_set():
                    self._waits = None
                    return

    def _serve(self, running: VmRunning) -> None:
        """Own the process for whoever has taken the machine, until that one is gone."""
        taker = self._taker
        assert taker is not None
        with contextlib.ExitStack() as stack:
            ended = os.pidfd_open(running.process.pid)
            stack.callback(os.close, ended)
            watched: list[socket.socket | int] = [taker, ended]
            # Whoever has been killed has said nothing more.
            with contextlib.suppress(OSError):
                while True:
                    ready, _, _ = select.select(watched, [], [])
                    if ended in ready:
                        running.process.wait_ended(_TURN_S)
                        taker.sendall(ended_line(running.process.exit_status or 0))
                        watched.remove(ended)
                    if taker in ready:
                        data = taker.recv(_CHUNK)
                        if not data:
                            break
                        grace_s = msgspec.json.decode(data.splitlines()[-1])["stop"]
                        running.process.stop(grace_s=float(grace_s))

    def _leave_taker(self) -> None:
        """Tell whoever has taken the machine, which waits for it, that nothing of it is left."""
        if self._taker is not None:
            self._taker.close()

    def _follow_owner(self) -> None:
        if self._order.owner is None:
            return
        try:
            owner = os.pidfd_open(self._order.owner)
        except OSError as err:
            raise _OverError from err

        def wait() -> None:
            select.select([owner], [], [])
            # A run that has taken the machine ends by itself.
            if not self._taken.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, daemon=True, name="nixos-spare-owner").start()

    def _open_door(self, stack: contextlib.ExitStack) -> None:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(self._door / SOCKET))
        listener.listen()
        self._card.write(self._door)
        threading.Thread(
            target=self._answer_all, args=(listener,), daemon=True, name="nixos-spare-door"
        ).start()

    def _answer_all(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = listener.accept()
                visitor.settimeout(_VISIT_S)
                # A visitor that leaves, or says what none of ours would, is let go.
                with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
                    head, _ = receive(visitor)
                    if head.get("verb") == "take" and self._hand_over(visitor, head):
                        continue
                    self._answer(visitor, head)
                visitor.close()

    def _hand_over(self, visitor: socket.socket, head: Mapping[str, Any]) -> bool:
        with self._lock:
            if self._waits is None or head["key"] != self._card.spare:
                return False
            if head["saved_at_s"] != self._snapshot_s:
                os.kill(os.getpid(), signal.SIGTERM)  # of a snapshot that is no more
                return False
            (self._door / CARD).unlink(missing_ok=True)
            handed, descriptors = self._waits
            self._waits = None
            self._taker = visitor
            try:
                hand_over(visitor, handed, descriptors)
            except OSError:  # it cannot be given a second time
                os.kill(os.getpid(), signal.SIGTERM)
                return True
            visitor.settimeout(None)
            self._taken.set()
            for descriptor in descriptors[1:]:  # the first is the terminal, closed with its process
                os.close(descriptor)
            return True

    def _answer(self, visitor: socket.socket, head: Mapping[str, Any]) -> None:
        if head.get("verb") == "end":
            send(visitor, {"kept": True})
            os.kill(os.getpid(), signal.SIGTERM)
        elif head.get("verb") == "take":
            visitor.sendall(json.dumps({"refused": "not now"}).encode() + b"\n")
        else:
            send(
                visitor,
                {
                    "error": f"{self._card.name}: is a spare, stopped until a run takes it",
                    "remedy": "pytest-nixos shell REF#HOST takes it",
                },
            )


def _be_over(_number: int, _frame: FrameType | None) -> None:
    # Once: what is being ended is not interrupted.
    _ignore_signals()
    raise _OverError


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
