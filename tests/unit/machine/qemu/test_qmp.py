"""QEMU's monitor: against a small monitor of the test's own, and against a real one where QEMU
is.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.qemu.qmp import QmpMonitor, throttle_disks
from pytest_nixos.machine.qemu.screen import screendump
from pytest_nixos.machine.serial_process import SerialProcess
from tests.support.qemu import qemu_program

QEMU = qemu_program()

GREETING = {"QMP": {"version": {"qemu": {"major": 8, "minor": 2, "micro": 0}}, "capabilities": []}}
DISK_FULL = {
    "event": "BLOCK_IO_ERROR",
    "data": {"device": "drive1", "reason": "No space left on device"},
    "timestamp": {"seconds": 1, "microseconds": 2},
}


def requests(connected: socket.socket) -> Iterator[dict[str, Any]]:
    """Cut a stream of JSON objects, which the library sends without newlines."""
    decoder, pending = json.JSONDecoder(), ""
    while chunk := connected.recv(65536):
        pending += chunk.decode()
        while pending:
            try:
                request, end = decoder.raw_decode(pending)
            except ValueError:
                break
            pending = pending[end:].lstrip()
            yield request


class FakeMonitor:
    """Serves one client: answers commands as told, then may go away."""

    def __init__(self, path: Path, answers: Mapping[str, Mapping[str, object]]) -> None:
        self.answers = answers
        self.received: list[str] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connected, _ = self._listening.accept()
        self._connected = connected
        with connected:

            def say(message: Mapping[str, object]) -> None:
                connected.sendall(json.dumps(message).encode() + b"\n")

            say(GREETING)
            for request in requests(connected):
                command = request["execute"]
                self.received.append(command)
                if command == "qmp_capabilities":
                    say({"return": {}})
                    say(DISK_FULL)
                elif command == "vanish":
                    return
                elif command != "silence":
                    answer = self.answers.get(command, {"return": {}})
                    say({**answer, "id": request["id"]})

    def close(self) -> None:
        self._listening.close()
        with contextlib.suppress(AttributeError, OSError):
            self._connected.shutdown(socket.SHUT_RDWR)
        self._thread.join(2)


@pytest.fixture
def events() -> list[tuple[str, Mapping[str, Any]]]:
    return []


@pytest.fixture
def monitor(tmp_path: Path, events: list[tuple[str, Mapping[str, Any]]]) -> Iterator[QmpMonitor]:
    monitor = QmpMonitor(tmp_path / "q", on_event=lambda *event: events.append(event))
    yield monitor
    monitor.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "nixos-qmp"]


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[FakeMonitor]:
    fake = FakeMonitor(
        tmp_path / "q",
        {
            "query-status": {"return": {"status": "running", "running": True}},
            "bad": {"error": {"class": "GenericError", "desc": "no such thing"}},
        },
    )
    yield fake
    fake.close()


def test_commands_are_answered_and_events_passed_on(
    monitor: QmpMonitor, qemu: FakeMonitor, events: list[tuple[str, Mapping[str, Any]]]
) -> None:
    monitor.start()
    status = monitor.execute("query-status", deadline=Deadline.after(60))
    assert status == {"status": "running", "running": True}
    assert monitor.is_connected
    assert events == [("BLOCK_IO_ERROR", DISK_FULL["data"])]


def test_the_socket_may_appear_later(tmp_path: Path, monitor: QmpMonitor) -> None:
    monitor.start()
    threading.Timer(0.2, FakeMonitor, (tmp_path / "q", {})).start()
    assert monitor.execute("cont", deadline=Deadline.after(60)) == {}


@pytest.mark.parametrize(
    ("command", "why"),
    [("bad", "no such thing"), ("silence", "no answer after 0.3 s"), ("vanish", "vanish")],
)
def test_a_command_that_fails_is_told(
    monitor: QmpMonitor, qemu: FakeMonitor, command: str, why: str
) -> None:
    monitor.start()
    monitor.execute("query-status", deadline=Deadline.after(60))
    with pytest.raises(MachineError, match=why):
        monitor.execute(command, deadline=Deadline.after(0.3))


def test_without_qemu_a_command_is_refused_in_time(monitor: QmpMonitor) -> None:
    monitor.start()
    with pytest.raises(MachineError, match="does not answer"):
        monitor.execute("cont", deadline=Deadline.after(0.1))
    assert not monitor.quit(deadline=Deadline.after(60))


def test_closing_is_safe_at_any_time(tmp_path: Path) -> None:
    never_started = QmpMonitor(tmp_path / "a", on_event=lambda *_event: None)
    never_started.close()
    never_started.close()
    waiting = QmpMonitor(tmp_path / "b", on_event=lambda *_event: None)
    waiting.start()
    waiting.close()
    with pytest.raises(MachineError):
        waiting.execute("cont", deadline=Deadline.after(0.1))


@pytest.mark.skipif(not QEMU, reason="no QEMU: neither on PATH nor of a VM (./dev test)")
def test_a_real_qemu_ends_when_told(
    tmp_path: Path, monitor: QmpMonitor, events: list[tuple[str, Mapping[str, Any]]]
) -> None:
    assert QEMU
    argv = (QEMU, "-machine", "none,accel=tcg", "-nographic", "-qmp")
    process = SerialProcess(
        (*argv, f"unix:{tmp_path}/q,server=on,wait=off"),
        env=dict(os.environ),
        cwd=tmp_path,
        console=Console(),
    )
    process.start()
    monitor.start()
    try:
        assert monitor.execute("query-status", deadline=Deadline.after(60))["status"] == "running"
        assert monitor.quit(deadline=Deadline.after(60))
        assert process.wait_ended(3)
        assert process.exit_status == 0
        assert poll(lambda: events or None, deadline=Deadline.after(1))
        assert events[0][0] == "SHUTDOWN"
    finally:
        process.stop(grace_s=0.5)


def test_a_real_qemu_shows_its_screen_or_says_that_there_is_none(
    tmp_path: Path, monitor: QmpMonitor
) -> None:
    if not QEMU:
        pytest.skip("no QEMU: neither on PATH nor of a VM (./dev test)")
    shot, limit = tmp_path / "shot.ppm", Deadline.after(20)
    argv = (QEMU, "-machine", "pc,accel=tcg", "-nographic", "-net", "none")
    with real_qemu(argv, tmp_path, monitor):
        assert poll(lambda: shown(monitor, shot) or None, deadline=limit)  # what the firmware says
    without = QmpMonitor(tmp_path / "q", on_event=lambda *_: None)
    with (
        contextlib.closing(without),
        real_qemu((*argv, "-vga", "none"), tmp_path, without),
        pytest.raises(MachineError, match=r"the VM has no screen: .*\n.*display device"),
    ):
        screendump(without, shot, deadline=Deadline.after(60))


def shown(monitor: QmpMonitor, shot: Path) -> bool:
    """Whether the screen is more than one colour."""
    picture = screendump(monitor, shot, deadline=Deadline.after(60))
    return len(set(picture.pixels)) > 1


@pytest.mark.parametrize("there", [False, True])
def test_a_picture_that_is_none_is_told_and_no_link_is_followed(
    tmp_path: Path,
    monitor: QmpMonitor,
    there: bool,
) -> None:
    (tmp_path / "elsewhere").write_bytes(b"P6 1 1 255 abc")
    (tmp_path / "shot").symlink_to(tmp_path / "elsewhere")
    if there:
        (tmp_path / "shot").unlink()
        (tmp_path / "shot").write_bytes(b"no picture")
    fake = FakeMonitor(tmp_path / "q", {"screendump": {"return": {}}})
    monitor.start()
    with pytest.raises(MachineError, match="picture of the screen cannot be read"):
        screendump(monitor, tmp_path / "shot", deadline=Deadline.after(60))
    fake.close()


@contextlib.contextmanager
def real_qemu(argv: Sequence[str], folder: Path, monitor: QmpMonitor) -> Iterator[None]:
    (folder / "q").unlink(missing_ok=True)
    process = SerialProcess(
        (*argv, "-qmp", f"unix:{folder}/q,server=on,wait=off"),
        env=dict(os.environ),
        cwd=folder,
        console=Console(),
    )
    process.start()
    monitor.start()
    try:
        yield
    finally:
        process.stop(grace_s=0.5)


@pytest.mark.skipif(not QEMU, reason="no QEMU: neither on PATH nor of a VM (./dev test)")
def test_disks_of_a_real_qemu_are_slowed_down_and_let_go(
    tmp_path: Path, monitor: QmpMonitor
) -> None:
    assert QEMU
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    (tmp_path / "store").write_bytes(bytes(1 << 20))
    argv = (
        *(QEMU, "-machine", "pc,accel=tcg", "-S", "-nodefaults", "-display", "none"),
        *("-drive", f"file={tmp_path}/disk,format=raw,if=none,id=drive1"),
        *("-device", "virtio-blk-pci,drive=drive1"),
        *("-drive", f"file={tmp_path}/store,format=raw,if=none,id=drive2,readonly=on"),
        *("-device", "virtio-blk-pci,drive=drive2"),
        *("-qmp", f"unix:{tmp_path}/q,server=on,wait=off"),
    )
    process = SerialProcess(argv, env=dict(os.environ), cwd=tmp_path, console=Console())
    process.start()
    monitor.start()

    def limit() -> int:
        (disk,) = [
            block
            for block in monitor.execute("query-block", deadline=Deadline.after(60))
            if block["device"] == "drive1"
        ]
        return int(disk["inserted"]["iops"])

    try:
        throttle_disks(monitor, operations_per_s=7)
        assert limit() == 7
        throttle_disks(monitor, operations_per_s=0)
        assert limit() == 0
    finally:
        process.stop(grace_s=0.5)
