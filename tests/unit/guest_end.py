"""Runs the real guest script on this machine: bash's ``/dev/tcp`` stands for virtserialports,
threads for QEMU.

As with a virtserialport, what was on its way is lost when the guest closes its end, and kept while
it has not opened it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from pytest_nixos.local.process import owned_process
from pytest_nixos.machine.channel.links import make_fifos
from pytest_nixos.machine.channel.protocol import guest_script
from tests.support.processes import processes_with

PORT_NAMES = ("control", "0", "1", "2", "3")


class _End:
    """A listening socket and the latest connection to it."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self._changed = threading.Condition()
        self._connection: socket.socket | None = None
        listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def wait(self) -> socket.socket:
        with self._changed:
            while self._connection is None:
                self._changed.wait()
            return self._connection

    def drop_latest(self) -> None:
        with self._changed:
            connection = self._connection
        if connection is not None:
            self.drop(connection)

    def drop(self, connection: socket.socket) -> None:
        with self._changed:
            if self._connection is connection:
                self._connection = None
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                if connection.family == socket.AF_INET:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._changed:
                    self._connection = connection
                    self._changed.notify_all()


class FakePort:
    """Carries bytes between a Unix socket, as QEMU serves it, and the guest script."""

    def __init__(self, socket_path: Path) -> None:
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        unix.bind(str(socket_path))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.bind(("127.0.0.1", 0))
        self.tcp_port: int = tcp.getsockname()[1]
        self._host, self._guest = _End(unix), _End(tcp)
        for source, sink in ((self._host, self._guest), (self._guest, self._host)):
            threading.Thread(target=_carry, args=(source, sink), daemon=True).start()

    def die(self) -> None:
        """Close both sides, as QEMU does when it ends."""
        for end in (self._host, self._guest):
            # Closing alone does not wake a thread that accepts.
            with contextlib.suppress(OSError):
                end.listener.shutdown(socket.SHUT_RDWR)
            end.listener.close()
        self._host.drop_latest()


def _carry(source: _End, sink: _End) -> None:
    while True:
        connection = source.wait()
        data = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                target = sink.wait()
                try:
                    target.sendall(data)
                except OSError:
                    sink.drop(target)
        source.drop(connection)


@contextlib.contextmanager
def guest_end(run_dir: Path) -> Iterator[dict[str, FakePort]]:
    """Serve the channel of the VM whose run directory is `run_dir`."""
    ports = {name: FakePort(run_dir / f"channel-{name}.sock") for name in PORT_NAMES}
    names = {str(port.tcp_port): name for name, port in ports.items()}
    with _serving(run_dir, names, "/dev/tcp/127.0.0.1"):
        try:
            yield ports
        finally:
            for port in ports.values():
                port.die()


@contextlib.contextmanager
def guest_end_of_pipes(run_dir: Path, **variables: str) -> Iterator[None]:
    """Serve the channel of a container whose named pipes lie in `run_dir`, to be made here.

    :param variables: more of the server's environment.
    """
    for name in PORT_NAMES:
        make_fifos(run_dir, name, owner=os.getuid())
    with _serving(run_dir, {name: name for name in PORT_NAMES}, str(run_dir), **variables):
        yield


@contextlib.contextmanager
def _serving(run_dir: Path, names: dict[str, str], devices: str, **more: str) -> Iterator[None]:
    ports_dir, spool = run_dir / "ports", run_dir / "spool"
    for device, name in names.items():
        entry = ports_dir / device
        entry.mkdir(parents=True)
        (entry / "name").write_text(f"pytest-nixos.{name}\n")
    environment = run_dir / "set-environment"
    environment.write_text(f"export PATH={os.environ['PATH']}\n")
    script = run_dir / "channel.bash"
    script.write_text(guest_script())
    variables = {
        "PYTEST_NIXOS_PORTS": str(ports_dir),
        "PYTEST_NIXOS_DEVICES": devices,
        "PYTEST_NIXOS_SPOOL": str(spool),
        "PYTEST_NIXOS_ENVIRONMENT": str(environment),
        **more,
    }
    with owned_process(["bash", str(script)], env=variables) as process:
        try:
            yield
        finally:
            # In a guest the service manager ends commands, which lead groups of their own.
            for group in (process.pid, *_groups(spool)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            _end_what_is_left(ports_dir)


def _groups(spool: Path) -> list[int]:
    return [int(job.read_text().split()[1]) for job in spool.glob("*.job") if job.stat().st_size]


def _end_what_is_left(ports_dir: Path) -> None:
    """End what the server started and nobody waits for, such as a command that was forked ahead;
    each has the server's variables.
    """
    for process in processes_with(f"PYTEST_NIXOS_PORTS={ports_dir}"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
