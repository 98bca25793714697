"""The door of a running machine, held open by the process that the machine belongs to."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from pytest_nixos.errors import CommandTimeout, NixosError
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import Transport
from pytest_nixos.machine.door.wire import receive, send

__all__ = ["CARD", "SOCKET", "Card", "Door"]

#: Name of the file that tells of the machine, in the directory of its door.
CARD = "machine.json"
#: Name of the socket there.
SOCKET = "door.sock"

# A machine has four ports; its own tests always find one.
_VISITORS_AT_ONCE = 3


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What the door's directory tells of the machine.

    :param name: what people call it by.
    :param host: the host's key in its run.
    :param backend: how it runs.
    :param owner: process that it belongs to.
    :param started_at_s: seconds since 1970.
    :param kept: whether the run that started it is over, and it was left to be looked at.
    :param idle_limit_s: seconds without a visitor after which a kept machine ends, 0 for none.
    :param spare: names all that shapes it, of a machine that waits, paused, for a run that takes it
        over; ``""`` for any other.
    :param waits: whether that one is ready to be taken.
    """

    name: str
    host: str
    backend: str
    owner: int
    started_at_s: float
    kept: bool = False
    idle_limit_s: float = 0.0
    spare: str = ""
    waits: bool = False

    @classmethod
    def of(cls, host: str, backend: str, *, owner: int, spare: str = "") -> Self:
        """Make the card of a machine that starts, with a name for it."""
        word = "".join(c if c.isalnum() or c in "-." else "-" for c in host.rpartition("#")[2])
        return cls(
            name=f"{word.strip('-.')}-{secrets.token_hex(2)}",
            host=host,
            backend=backend,
            owner=owner,
            started_at_s=time.time(),
            spare=spare,
        )

    def write(self, directory: Path) -> None:
        """Put the card, whole or not at all, into a door's directory."""
        new = directory / f"{CARD}.new"
        new.write_text(json.dumps(self.to_json()))
        new.rename(directory / CARD)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return msgspec.structs.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what :meth:`to_json` gave.

        :raises TypeError: if it is not that.
        """
        return cls(**data)


class Door:
    """Lets other processes of this user run root commands on a machine; a context manager that
    closes it.

    Its directory is this user's alone, as the machine's own, and nothing of the guest or of its QEMU
    sees it.

    :param host: the host's key in its run.
    :param backend: how the machine runs.
    :param transport: returns its root command channel.
    :param entered: called after each visit: what was observed before no longer holds.
    """

    def __init__(
        self,
        host: str,
        backend: str,
        *,
        transport: Callable[[], Transport],
        entered: Callable[[], None],
    ) -> None:
        self.card = Card.of(host, backend, owner=os.getpid())
        self._transport = transport
        self._entered = entered
        self._turns = threading.BoundedSemaphore(_VISITORS_AT_ONCE)
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._last_visit_s = time.monotonic()
        self._visitors = 0
        self._stack = contextlib.ExitStack()
        self.directory = Path()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.directory = stack.enter_context(run_directory()).path
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(self.directory / SOCKET))
            listener.listen()
            # close() alone does not wake a thread that accepts.
            stack.callback(_shut, listener)
            self._write_card()
            threading.Thread(
                target=self._serve, args=(listener,), daemon=True, name="nixos-door"
            ).start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def keep(self, *, idle_limit_s: float) -> None:
        """Say that the machine is left to be looked at, and for how long nobody needs to.

        :param idle_limit_s: seconds.
        """
        self._last_visit_s = time.monotonic()
        self.card = replace(self.card, kept=True, idle_limit_s=idle_limit_s, owner=os.getpid())
        self._write_card()

    @property
    def is_over(self) -> bool:
        """Whether somebody has ended the kept machine, or nobody has come for long."""
        idle_s = 0.0 if self._visitors else time.monotonic() - self._last_visit_s
        return self._ended.is_set() or idle_s > self.card.idle_limit_s > 0

    def _write_card(self) -> None:
        self.card.write(self.directory)

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = listener.accept()
                threading.Thread(target=self._visit, args=(visitor,), daemon=True).start()

    def _visit(self, visitor: socket.socket) -> None:
        # A visitor that leaves, or says what none of ours would, is let go.
        with visitor, contextlib.suppress(OSError, KeyError, TypeError, ValueError):
            head, parts = receive(visitor)
            if head.get("verb") == "end":
                send(visitor, {"kept": self.card.kept})
                if self.card.kept:
                    self._ended.set()
                return
            limit = head["limit_s"]
            deadline = Deadline.after(float("inf") if limit is None else float(limit))
            with self._noted(), self._turns:
                answer, streams = self._answer(str(head["command"]), b"".join(parts), deadline)
            send(visitor, answer, *streams)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        with self._lock:
            self._visitors += 1
        try:
            yield
        finally:
            with self._lock:
                self._visitors -= 1
                self._last_visit_s = time.monotonic()
                self._entered()

    def _answer(
        self, command: str, stdin: bytes, deadline: Deadline
    ) -> tuple[dict[str, Any], tuple[bytes, ...]]:
        try:
            done = self._transport().run(command, deadline=deadline, stdin=stdin)
        except NixosError as err:
            late = isinstance(err, CommandTimeout)
            return {"error": err.message, "remedy": err.remedy, "late": late}, ()
        answer = {"status": done.exit_status, "duration_s": done.duration_s}
        return answer, (done.stdout, done.stderr)


def _shut(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
