"""Linux namespaces of a container, as seen from the host machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from pytest_nixos.errors import TransportError

__all__ = ["Leader", "find_leader", "in_network_of", "link_argv"]

_CLONE_NEWNET = 0x40000000

T = TypeVar("T")


class Leader:
    """Process 1 of a container, held by a descriptor so that a reused process id cannot deceive.

    :param pid: its id in this process's namespace.
    :raises ProcessLookupError: if there is no such process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended; safe for several threads."""
        return not self._watch(0.0)

    def wait_ended(self, limit_s: float) -> bool:
        """Wait for its end, at most `limit_s` seconds; return whether it came."""
        return self._watch(limit_s)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Give up the descriptor; the leader counts as ended from then on."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _watch(self, limit_s: float) -> bool:
        descriptor = self._descriptor
        if descriptor < 0:
            return True
        watch = select.poll()
        watch.register(descriptor, select.POLLIN)
        return bool(watch.poll(limit_s * 1000))


def find_leader(unshare_pid: int, *, proc: Path = Path("/proc")) -> int | None:
    """Find the container's process 1 below ``unshare --pid --fork systemd-nspawn ...``.

    systemd-nspawn is the first process of the namespace that ``unshare`` made, and the container's
    process 1 is the first of the one inside it (``NSpid`` of proc(5)). machined is not asked: it
    may be absent.

    :param unshare_pid: process id of ``unshare``.
    :return: its id in this process's namespace, ``None`` if it does not exist yet or any more.
    """
    nspawn = _first_below(str(unshare_pid), proc)
    leader = None if nspawn is None else _first_below(nspawn, proc)
    return None if leader is None else int(leader)


def link_argv(pid: int, *words: str, nsenter: str = "nsenter") -> tuple[str, ...]:
    """Return the command that sets a link in the network of process `pid`, ``ip link set
    WORDS``.
    """
    return (nsenter, f"--net=/proc/{pid}/ns/net", "--", "ip", "link", "set", *words)


def in_network_of(pid: int, function: Callable[[], T]) -> T:
    """Run `function` in a thread that has entered the network namespace of process `pid`
    (setns(2)).

    Sockets stay in the namespace in which they were made; no other thread of this process is
    affected.

    :raises TransportError: if the process has gone or may not be entered.
    """
    task = _NetworkTask(pid, function)
    thread = threading.Thread(target=task.run, name="nixos-network")
    thread.start()
    thread.join()
    return task.result()


class _NetworkTask(Generic[T]):
    """A function, the namespace to run it in, and what became of it."""

    def __init__(self, pid: int, function: Callable[[], T]) -> None:
        self._pid = pid
        self._function = function
        self._values: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._enter()
            self._values.append(self._function())
        except BaseException as err:  # noqa: BLE001 - carried to the thread that asked
            self._error = err

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._values[0]

    def _enter(self) -> None:
        try:
            descriptor = os.open(f"/proc/{self._pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            raise _cannot_enter(self._pid, err) from err
        try:
            # os.setns exists from Python 3.12 on.
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(descriptor, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise _cannot_enter(self._pid, OSError(number, os.strerror(number)))
        finally:
            os.close(descriptor)


def _cannot_enter(pid: int, err: OSError) -> TransportError:
    return TransportError(
        f"the network namespace of process {pid} cannot be entered: {err.strerror}",
        remedy="look at the console: the container has probably ended",
    )


def _first_below(parent: str, proc: Path) -> str | None:
    """Return the child of a process that is the first of a namespace inside its own."""
    depth = len(_namespaced(_status(parent, proc)))
    for pid in _children(parent, proc):
        fields = _status(pid, proc)
        numbers = _namespaced(fields)
        if fields.get("PPid") == parent and len(numbers) > depth and numbers[-1] == "1":
            return pid
    return None


def _children(parent: str, proc: Path) -> list[str]:
    """Return the children of a process, or all processes where the kernel does not tell
    (``CONFIG_PROC_CHILDREN``).
    """
    try:
        return (proc / parent / "task" / parent / "children").read_text().split()
    except OSError:
        return [entry.name for entry in proc.iterdir() if entry.name.isdigit()]


def _namespaced(status: Mapping[str, str]) -> list[str]:
    return status.get("NSpid", "").split()


def _status(pid: str, proc: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(proc / pid / "status").splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
