"""One port against guests that say too much: every wait ends, and no memory fills."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.channel.links import FifoLink, make_fifos
from pytest_nixos.machine.channel.ports import Expired, PortStream
from pytest_nixos.machine.channel.protocol import find_session, parse_kill_reply
from pytest_nixos.machine.channel.transport import PORTS, SerialChannel

MIB = 1 << 20


@contextlib.contextmanager
def flood(directory: Path, port: str, text: str) -> Iterator[None]:
    """Be a guest that writes to its end without end, faster than it is read."""
    script = f"exec yes '{text}' 1<>{port}.out"
    with subprocess.Popen(["sh", "-c", script], cwd=directory) as process:
        try:
            time.sleep(0.1)
            yield
        finally:
            process.kill()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for port in PORTS:
        make_fifos(tmp_path, port, owner=os.getuid())
    return tmp_path


@pytest.fixture
def stream(directory: Path) -> Iterator[PortStream]:
    link = FifoLink(directory, "control")
    stream = PortStream(link, lambda: None)
    stream.connect(Deadline.after(1))
    yield stream
    link.close()


@pytest.mark.parametrize("text", ["x", "K 1 2 3 ", "S"])
def test_a_wait_for_an_answer_ends_while_the_guest_floods(
    stream: PortStream, directory: Path, text: str
) -> None:
    with flood(directory, "control", text):
        started_s = time.monotonic()
        with pytest.raises(Expired):
            stream.take(
                lambda data: parse_kill_reply(data, "f" * 32, 1, 1), deadline=Deadline.after(0.5)
            )
        with pytest.raises(Expired):
            stream.take(lambda data: find_session(data, "f" * 32), deadline=Deadline.after(0.5))
        assert time.monotonic() - started_s < 4
    assert len(stream.received) < 2 * MIB


class Spring:
    """A link with more to read at every moment, which the fastest guest cannot promise."""

    name = "spring"
    connected = True

    def __init__(self) -> None:
        self._end = Deadline.after(60)
        self._zero = os.open("/dev/zero", os.O_RDONLY)

    def connect(self) -> None:
        pass

    def disconnect(self) -> None:
        os.close(self._zero)

    def shut(self) -> None:
        pass

    def descriptors(self) -> tuple[int, int]:
        return self._zero, self._zero

    def receive(self) -> bytes:
        if self._end.expired:
            pytest.fail("the wait has no end")
        return bytes(64)

    def send(self, data: memoryview) -> int:
        raise BlockingIOError


def test_every_wait_ends_where_there_is_always_more_to_read() -> None:
    spring = Spring()
    stream = PortStream(spring, lambda: None)
    started_s = time.monotonic()
    with pytest.raises(Expired):
        stream.take(lambda data: find_session(data, "f" * 32), deadline=Deadline.after(0.3))
    with pytest.raises(Expired):
        stream.send(b"x", deadline=Deadline.after(0.3))
    stream.drain()
    assert time.monotonic() - started_s < 6
    stream.disconnect()


def test_sending_ends_while_the_guest_floods_and_reads_nothing(
    stream: PortStream, directory: Path
) -> None:
    with flood(directory, "control", "x"):
        started_s = time.monotonic()
        with pytest.raises(Expired):
            stream.send(bytes(16 * MIB), deadline=Deadline.after(0.5))
        assert time.monotonic() - started_s < 4
        assert len(stream.received) < 4 * MIB
        assert len(stream.drain()) < 4 * MIB
        assert time.monotonic() - started_s < 6


def test_a_command_ends_in_time_whatever_the_guest_floods(directory: Path) -> None:
    channel = SerialChannel({port: FifoLink(directory, port) for port in PORTS})
    with contextlib.ExitStack() as stack:
        for port in PORTS:
            stack.enter_context(flood(directory, port, "A "))
        started_s = time.monotonic()
        with pytest.raises(TransportError):
            channel.run("true", deadline=Deadline.after(1))
        assert time.monotonic() - started_s < 15
    channel.close()


def test_a_dropped_link_forgets_what_was_on_its_way(stream: PortStream, directory: Path) -> None:
    stream.send(b"half a request", deadline=Deadline.after(1))
    with flood(directory, "control", "x"):
        time.sleep(0.1)
    stream.disconnect()
    stream.connect(Deadline.after(1))
    assert stream.drain() == b""
    guest = os.open(directory / "control.in", os.O_RDWR | os.O_NONBLOCK)
    with contextlib.closing(os.fdopen(guest, "rb", buffering=0)) as file:
        assert file.read(100) is None
