"""QEMU's monitor: one connection for the life of a machine, on a thread of its own.

QEMU serves one monitor client at a time, so whoever wants a command run asks this one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, QMPClient, QMPError

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline

__all__ = ["QmpEventSink", "QmpMonitor", "plug_network_cards", "throttle_disks"]

_RETRY_S = 0.01
_JOIN_S = 2.0
_ORDER_S = 10.0

# Called on the monitor's thread with the event's name and its data; must return soon and not raise.
QmpEventSink = Callable[[str, Mapping[str, Any]], None]


class QmpMonitor:
    """Connect to QEMU's monitor as soon as its socket appears, pass events on, run commands.

    :param path: the monitor's Unix socket.
    :param on_event: told each event, see QEMU's QMP reference (``BLOCK_IO_ERROR``, ``STOP``,
        ``SHUTDOWN``...).
    """

    def __init__(self, path: Path, *, on_event: QmpEventSink) -> None:
        self.path = path
        self._on_event = on_event
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient(path.parent.name)
        # QEMU's end is not this library's error: the machine's own messages tell it.
        self._client.logger = logging.getLogger("pytest_nixos.qmp")
        self._client.logger.disabled = True
        self._connected = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="nixos-qmp", daemon=True)

    def start(self) -> None:
        """Begin to look for the socket; return at once."""
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether QEMU has answered."""
        return self._connected.is_set()

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline: Deadline
    ) -> Any:
        """Run one monitor command and return its value as QEMU gave it.

        :raises MachineError: if QEMU cannot be reached by `deadline`, refuses, or goes away.
        """
        while self._closed or not self._connected.wait(deadline.patience_s):
            if self._closed or deadline.expired:
                raise _failure(command, "QEMU's monitor does not answer")
        call = self._client.execute(command, dict(arguments) if arguments else None)
        return self._call(command, call, deadline)

    def quit(self, *, deadline: Deadline) -> bool:
        """Ask QEMU to end; return whether it took the order."""
        if not self.is_connected:
            return False
        try:
            self.execute("quit", deadline=deadline)
        except MachineError:
            return False
        return True

    def close(self) -> None:
        """Give up the connection; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if not self._thread.ident:
            self._loop.close()
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._cancel_all)
        self._thread.join(_JOIN_S)

    def _call(self, command: str, call: Coroutine[Any, Any, Any], deadline: Deadline) -> Any:
        try:
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        except RuntimeError as err:
            call.close()
            raise _failure(command, "QEMU's monitor is closed") from err
        try:
            return future.result(timeout=deadline.remaining_s)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError) as err:
            future.cancel()
            raise _failure(command, f"no answer after {deadline.limit_s:g} s") from err
        except QMPError as err:
            raise _failure(command, str(err)) from err

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        try:
            await self._connect()
            self._connected.set()
            async for event in self._client.events:
                self._on_event(str(event["event"]), _mapping(event.get("data")))
        finally:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await self._client.disconnect()

    async def _connect(self) -> None:
        while True:
            if self.path.exists():
                with contextlib.suppress(ConnectError):
                    await self._client.connect(str(self.path))
                    return
            await asyncio.sleep(_RETRY_S)

    def _cancel_all(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()


def plug_network_cards(monitor: QmpMonitor, *, connected: bool) -> None:
    """Give or take the carrier of every network card of a VM (QMP ``set_link``).

    :raises MachineError: if it has no card that QEMU can tell of, or QEMU refuses.
    """
    deadline = Deadline.after(_ORDER_S)
    cards = [card["name"] for card in monitor.execute("query-rx-filter", deadline=deadline)]
    if not cards:
        raise MachineError(
            "the VM has no network card whose cable could be pulled",
            remedy="give it a virtio card, as qemu-vm.nix does (virtualisation.qemu.networkingOptions)",
        )
    for card in cards:
        monitor.execute("set_link", {"name": card, "up": connected}, deadline=deadline)


def throttle_disks(monitor: QmpMonitor, *, operations_per_s: int) -> None:
    """Let each disk of a VM do so many reads and writes a second, ``0`` for no limit (QMP
    ``block_set_io_throttle``).

    :raises MachineError: if it has no disk that QEMU can tell of, QEMU refuses, or a disk has
        another limit afterwards.
    """
    deadline = Deadline.after(_ORDER_S)
    disks = _writable_disks(monitor, deadline)
    for disk in disks:
        limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        arguments = {"device": disk, **limits, "iops": operations_per_s}
        monitor.execute("block_set_io_throttle", arguments, deadline=deadline)
    limits_now = _writable_disks(monitor, deadline)
    if not disks or any(limit != operations_per_s for limit in limits_now.values()):
        raise MachineError(
            f"{len(disks)} disks of the VM were to do {operations_per_s or 'any number of'} operations a second; "
            f"QEMU's limits are {limits_now}",
            remedy="give it a disk by -drive, as qemu-vm.nix does (virtualisation.qemu.drives)",
        )


def _writable_disks(monitor: QmpMonitor, deadline: Deadline) -> dict[str, int]:
    """Return the name of each disk that can be written, and its limit of operations a second."""
    found = monitor.execute("query-block", deadline=deadline)
    return {
        str(block["device"]): int(inserted.get("iops", 0))
        for block in found
        if block.get("device") and (inserted := block.get("inserted")) and not inserted.get("ro")
    }


def _failure(command: str, why: str) -> MachineError:
    return MachineError(
        f"QEMU monitor command {command}: {why}", remedy="look at the machine's console for its end"
    )


def _mapping(data: object) -> Mapping[str, Any]:
    return data if isinstance(data, dict) else {}
