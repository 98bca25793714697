"""A switch of ours: Ethernet frames between the machines of one network, without root, and with
whatever trouble is asked for on their way.

It learns who is where from what it hears, as a switch does. One thread carries all frames; whoever
asks for something else does so under its lock.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pytest_nixos.machine.cluster.capture import Capture
from pytest_nixos.machine.cluster.impairment import Flight, Rule
from pytest_nixos.machine.cluster.port import PacketPort, Port, StreamPort

__all__ = ["Answer", "Switch"]

_IDLE_S = 5.0
_CROWDED_S = 0.002
_IS_GROUP = 1  # of a hardware address's first byte: broadcast and multicast

#: Gives what the network itself answers to a frame that a port sent, if anything.
Answer = Callable[[str, bytes], bytes | None]


@dataclass(eq=False, slots=True, kw_only=True)
class _Awaited:
    """A frame that somebody waits for at a port."""

    port: str
    is_answer: Callable[[bytes], bool]
    came: threading.Event = field(default_factory=threading.Event)


class Switch:
    """A running switch; a context manager that ends it.

    :param capture: told every frame that a port sends.
    :param answer: the network's own voice.
    """

    def __init__(self, *, capture: Capture, answer: Answer | None = None) -> None:
        self._capture = capture
        self._answer = answer or (lambda _port, _frame: None)
        self._ports: dict[str, Port] = {}
        self._apart: set[str] = set()
        self._places: dict[bytes, str] = {}
        self._rules: list[Rule] = []
        self._later: list[tuple[float, int, str, bytes]] = []
        self._numbers = itertools.count()
        self._awaited: list[_Awaited] = []
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, name="nixos-switch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_closed = True
        self._wake()
        self._thread.join()
        for port in self._ports.values():
            port.close()
        self._selector.close()
        self._waker.close()
        self._woken.close()

    def add_card(self, name: str, path: Path, *, apart: bool = False) -> None:
        """Add a port for a VM's network card, see :class:`StreamPort`.

        :param apart: whether it hears nobody but the network itself until :meth:`bring_in`.
        """
        self._add(StreamPort(name, path, lambda frame: self._heard(name, frame)), apart=apart)

    def add_interface(self, name: str, interface: socket.socket) -> None:
        """Add a port for an interface of this machine's kernel, see :class:`PacketPort`."""
        self._add(PacketPort(name, interface, lambda frame: self._heard(name, frame)), apart=False)

    def bring_in(self, *names: str) -> None:
        """Let ports meet the others."""
        with self._lock:
            self._apart.difference_update(names)

    @contextlib.contextmanager
    def under(self, *rules: Rule) -> Iterator[None]:
        """Have rules at work inside this context, after those that are at work already."""
        with self._lock:
            self._rules += rules
        try:
            yield
        finally:
            with self._lock:
                # The same rule may be at work twice: only this context's end goes.
                for rule in rules:
                    self._rules.remove(rule)

    def round_trip_s(
        self,
        source: str,
        target: str,
        question: bytes,
        is_answer: Callable[[bytes], bool],
        *,
        limit_s: float,
    ) -> float | None:
        """Send a frame as if a port had sent it, and wait until its answer arrives at that port.

        :return: seconds; ``None`` where it does not arrive in time.
        """
        wait = _Awaited(port=source, is_answer=is_answer)
        with self._lock:
            self._awaited.append(wait)
            if not {source, target} & self._apart:
                self._send(source, target, question)
        began_s = time.monotonic()
        self._wake()
        try:
            return time.monotonic() - began_s if wait.came.wait(limit_s) else None
        finally:
            with self._lock:
                self._awaited.remove(wait)

    def _add(self, port: Port, *, apart: bool) -> None:
        with self._lock:
            self._ports[port.name] = port
            if apart:
                self._apart.add(port.name)
            port.watch(
                self._watch,
                self._forget,
            )
        self._wake()

    def _watch(self, sock: socket.socket, call: Callable[[], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, call)

    def _forget(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _serve(self) -> None:
        while not self._is_closed:
            ready = self._selector.select(self._patience_s())
            with self._lock:
                for key, _ in ready:
                    key.data()
                self._deliver()

    def _patience_s(self) -> float:
        with self._lock:
            next_s = self._later[0][0] - time.monotonic() if self._later else _IDLE_S
            crowded = any(p.is_waiting for p in self._ports.values() if isinstance(p, StreamPort))
        return max(0.0, min(next_s, _CROWDED_S if crowded else _IDLE_S))

    def _deliver(self) -> None:
        now_s = time.monotonic()
        while self._later and self._later[0][0] <= now_s:
            _, _, name, frame = heapq.heappop(self._later)
            self._arrive(name, frame)
        for port in self._ports.values():
            if isinstance(port, StreamPort):
                port.flush()

    def _heard(self, source: str, frame: bytes) -> None:
        if len(frame) < 14:
            return
        self._capture.add(frame)
        reply = self._answer(source, frame)
        if reply is not None:
            self._capture.add(reply)
            self._ports[source].send(reply)
        if source in self._apart:
            return
        receiver, sender = frame[:6], frame[6:12]
        if not sender[0] & _IS_GROUP:
            self._places[sender] = source
        for target in self._targets(source, receiver):
            self._send(source, target, frame)

    def _targets(self, source: str, receiver: bytes) -> list[str]:
        known = None if receiver[0] & _IS_GROUP else self._places.get(receiver)
        names = [known] if known is not None else list(self._ports)
        return [name for name in names if name != source and name not in self._apart]

    def _send(self, source: str, target: str, frame: bytes) -> None:
        now_s = time.monotonic()
        flights: list[Flight] = [Flight(frame=frame, due_s=now_s)]
        for rule in self._rules:
            if rule.applies(source, target):
                flights = [after for before in flights for after in rule.befall(before)]
        for flight in flights:
            if flight.due_s <= now_s:
                self._arrive(target, flight.frame)
            else:
                entry = (flight.due_s, next(self._numbers), target, flight.frame)
                heapq.heappush(self._later, entry)

    def _arrive(self, name: str, frame: bytes) -> None:
        for wait in self._awaited:
            if wait.port == name and wait.is_answer(frame):
                wait.came.set()
        self._ports[name].send(frame)
