"""The process of a machine that another process has started and goes on to own: it tells how that
ends, and ends it when it is told to, or when whoever uses it is gone.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
from pexpect.fdpexpect import fdspawn

from pytest_nixos.machine.console import Console
from pytest_nixos.machine.serial_process import SerialProcess

__all__ = ["TakenProcess", "ended_line", "stop_line"]

_CHUNK = 1 << 12
_KEEPER_S = 10.0
_KILLED = -9


class TakenProcess(SerialProcess):
    """A process of a keeper, whose terminal is ours.

    :param keeper: connection to who started it.
    :param pid: its process id.
    :param terminal: descriptor of the other end of its terminal; closed with its end.
    """

    def __init__(
        self,
        keeper: socket.socket,
        *,
        pid: int,
        terminal: int,
        console: Console,
        answer: Callable[[str], str],
    ) -> None:
        super().__init__((), env={}, cwd=Path("/"), console=console, answer=answer)
        self.pid = pid
        self._keeper = keeper
        self._terminal = terminal
        self._gone = threading.Event()

    def stop(self, *, grace_s: float) -> None:
        """Have the keeper end the process and its group, and wait for it."""
        with contextlib.suppress(OSError):
            self._keeper.sendall(stop_line(grace_s))
        self._ended.wait(grace_s + _KEEPER_S)

    def release(self) -> None:
        """Let the keeper end what is left and remove its directory, and wait for that."""
        with contextlib.suppress(OSError):
            self._keeper.shutdown(socket.SHUT_WR)
        self._gone.wait(_KEEPER_S)
        self._keeper.close()

    def _own(self) -> None:
        self._started.set()
        serial: fdspawn[bytes] = fdspawn(
            self._terminal, maxread=_CHUNK, encoding=None, use_poll=True
        )
        reader = threading.Thread(target=self._read, args=(serial,), daemon=True)
        reader.start()
        received = bytearray()
        # An end without a word: the keeper was killed, and its processes with it.
        status = _KILLED
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            while data := self._keeper.recv(_CHUNK):
                received += data
                while b"\n" in received:
                    line, _, rest = bytes(received).partition(b"\n")
                    received = bytearray(rest)
                    status = msgspec.json.decode(line, type=dict[str, int])["ended"]
                    self._end(status, reader)
        self._end(status, reader)
        self._gone.set()

    def _read(self, serial: fdspawn[bytes]) -> None:
        with contextlib.closing(serial):
            self._pump(serial, self._ended.is_set)

    def _end(self, status: int, reader: threading.Thread) -> None:
        if self._ended.is_set():
            return
        self.exit_status = status
        reader.join(timeout=1.0)  # the console's last line
        self._ended.set()


def stop_line(grace_s: float) -> bytes:
    """Build the order to end the process, SIGKILL after `grace_s` seconds."""
    return msgspec.json.encode({"stop": grace_s}) + b"\n"


def ended_line(status: int) -> bytes:
    """Build the word of a keeper that the process has ended."""
    return msgspec.json.encode({"ended": status}) + b"\n"
