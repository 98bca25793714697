"""Machines that outlive their run to be looked at (``--nixos-keep``), and the process that holds them.

Such a run goes on in a process of its own, forked before anything begins. The one that was started
waits for its exit status and ends with that; the other stays behind as long as a kept machine runs.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_nixos.local.process import die_with_parent, live_without_parent
from pytest_nixos.local.run_signals import RunSignals
from pytest_nixos.local.text import printable

if TYPE_CHECKING:
    from pytest_nixos.machine.door.door import Door
    from pytest_nixos.plugin.machines.launch import Launch

__all__ = ["KEPT", "KeptMachines", "fork_run", "hold", "refusal"]

#: Nobody has looked for this long: a kept machine ends by itself.
IDLE_LIMIT_S = 7200.0
# Each has its memory; of more than these the directories are kept.
_MOST = 3
_LOOK_S = 0.3
_ANSWER = struct.Struct("!i?")
_INTERNAL_ERROR = 3


class _Kept(msgspec.Struct):
    launch: Launch
    door: Door
    stack: ExitStack


class KeptMachines(msgspec.Struct):
    """The machines that stay when the run is over.

    :param answer: descriptor on which the process in front waits.
    """

    answer: int
    _machines: list[_Kept] = msgspec.field(default_factory=list)

    @property
    def has_room(self) -> bool:
        """Whether one more may stay."""
        return len(self._machines) < _MOST

    def add(self, launch: Launch) -> None:
        """Let a machine live on when its fixture ends."""
        assert launch.door is not None
        self._machines.append(_Kept(launch, launch.door, launch.take_machine()))

    def sweep(self) -> bool:
        """End those that nobody wants any more; return whether one is left."""
        for kept in tuple(self._machines):
            if kept.door.is_over or not kept.launch.lives:
                self._machines.remove(kept)
                kept.stack.close()
        return bool(self._machines)

    def end(self) -> None:
        """End all."""
        while self._machines:
            self._machines.pop().stack.close()

    def tell(self) -> None:
        """Say which are left, how to enter them and how to end them."""
        for kept in self._machines:
            kept.door.keep(idle_limit_s=IDLE_LIMIT_S)
            name = kept.door.card.name
            _say(f"{kept.door.card.host}: left running as {name}")
            _say(f"  look into it: pytest-nixos shell {name}  or  pytest-nixos ssh {name}")
            _say(
                f"  end it: pytest-nixos machines --stop {name}  (by itself {IDLE_LIMIT_S / 60:.0f} min"
                " after the last look)"
            )


KEPT = pytest.StashKey[KeptMachines]()


def refusal(environment: Mapping[str, str]) -> str:
    """Say why no machine can be left running here, ``""`` where one can."""
    if environment.get("CI") not in {None, "", "false", "0"}:
        return "a CI job leaves nothing running"
    return ""


def fork_run(config: pytest.Config) -> int | None:
    """Let a process of its own do the run.

    :return: its exit status, in the process that was started; ``None`` in the one that does the
        run.
    """
    front = os.getpid()
    ours, its = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    run = os.fork()
    if run == 0:
        os.close(ours)
        die_with_parent(front)
        config.stash[KEPT] = KeptMachines(its)
        return None
    os.close(its)
    with RunSignals() as signals:
        signals.run = run
        said = b""
        while len(said) < _ANSWER.size and (more := os.read(ours, _ANSWER.size - len(said))):
            said += more
        os.close(ours)
        if len(said) < _ANSWER.size:
            ended = os.waitstatus_to_exitcode(os.waitpid(run, 0)[1])
            return ended if ended >= 0 else 128 - ended
        status, stays = _ANSWER.unpack(said)
        if not stays:
            os.waitpid(run, 0)
        return int(status)


def hold(kept: KeptMachines, ended_with: int | BaseException | None) -> None:
    """End the process that did the run: at once, or when the last kept machine has ended.

    :param ended_with: pytest's exit status, or the error in place of one.
    """
    if isinstance(ended_with, BaseException):
        traceback.print_exception(ended_with)
        status = _INTERNAL_ERROR
    else:
        status = int(ended_with or 0)
    stays = kept.sweep()
    ended = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(kept.end)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: ended.set())
        kept.tell()
        # What would run when the interpreter ends; this process never comes to that.
        atexit._run_exitfuncs()  # noqa: SLF001 - the one way to it
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if stays:
            _leave_terminal()
            live_without_parent()
        with contextlib.suppress(OSError):
            os.write(kept.answer, _ANSWER.pack(status, stays))
            os.close(kept.answer)
        while kept.sweep() and not ended.wait(_LOOK_S):
            pass
    os._exit(status)


def _leave_terminal() -> None:
    """Give up the terminal and the pipes that others read until they end."""
    os.chdir("/")
    with contextlib.suppress(OSError):
        os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    theirs = {_identity(number) for number in (0, 1, 2)} - {None, _identity(nowhere)}
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number > 2 and number != nowhere and _identity(number) in theirs:
            os.close(number)


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _say(text: str) -> None:
    sys.stdout.write(f"nixos: {printable(text)}\n")
