"""An ssh server for one connection, on this machine: what its client asks for is done in the guest,
over the root command channel. The guest needs no sshd, no key, no port and no user for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import asyncssh

from pytest_nixos.errors import NixosError
from pytest_nixos.machine.door.ssh_access import HOST_KEY, KEY, ssh_keys
from pytest_nixos.machine.door.visitor import OpenDoor
from pytest_nixos.machine.guest_program import GuestProgram
from pytest_nixos.machine.terminal import GuestTerminal

__all__ = ["serve_client"]

_ROOT = "root"
_CHUNK = 1 << 16
_FULL_S = 0.05
_TYPED_S = 0.05
_GONE = 255
_END_OF_INPUT = b"\x04"
# Where openssh keeps it: nixpkgs beside the client, Debian below /usr/lib.
_SFTP = """
for one in "$(readlink -f "$(type -P ssh)")" "$(readlink -f "$(type -P sshd)")"; do
  [[ ! -x ${one%/*}/../libexec/sftp-server ]] || exec "${one%/*}/../libexec/sftp-server"
done
[[ ! -x /usr/lib/openssh/sftp-server ]] || exec /usr/lib/openssh/sftp-server
echo "the guest has no sftp-server (openssh): use rsync, or scp -O where it has scp" >&2
exit 127
"""
# The other end of a forwarded port, as bash itself reaches it; over when that closes.
_FORWARD = "exec 9<>/dev/tcp/{host}/{port} || exit; cat <&0 >&9 & cat <&9; kill $!"

Process = asyncssh.SSHServerProcess[bytes]
Reader = asyncssh.SSHReader[bytes]
Writer = asyncssh.SSHWriter[bytes]


def serve_client(door: OpenDoor, *, stdin: int, stdout: int) -> None:
    """Serve the ssh client behind two descriptors until it leaves.

    :param door: of the machine that it enters.
    """
    ours, its = socket.socketpair()
    for source, sink in (
        (lambda: os.read(stdin, _CHUNK), ours.sendall),
        (lambda: ours.recv(_CHUNK), lambda data: _write_all(stdout, data)),
    ):
        threading.Thread(target=_carry, args=(source, sink, ours), daemon=True).start()
    asyncio.run(_serve(door, its, leave=lambda: _end_link(ours)))
    # What is on its way to the client goes out before this process ends.
    ours.close()


async def _serve(door: OpenDoor, connection: socket.socket, *, leave: Callable[[], None]) -> None:
    # ssh sends SIGHUP to what it was connected through as it ends, and so does a terminal.
    for number in (signal.SIGHUP, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, leave)
    keys = await asyncio.to_thread(ssh_keys, door)
    server = await asyncssh.run_server(
        connection,
        server_factory=lambda: _Server(door),
        server_host_keys=[str(keys / HOST_KEY)],
        authorized_client_keys=str(keys / f"{KEY}.pub"),
        encoding=None,
        line_editor=False,
        agent_forwarding=False,
        login_timeout=120,
    )
    await server.wait_closed()


class _Server(asyncssh.SSHServer):
    """Lets root in, by the key of the run alone."""

    def __init__(self, door: OpenDoor) -> None:
        self._door = door

    def begin_auth(self, _username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return False

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(self._door)

    def connection_requested(
        self, dest_host: str, dest_port: int, _orig_host: str, _orig_port: int
    ) -> Callable[[Reader, Writer], Awaitable[None]]:
        """Reach a port as the guest reaches it (``ssh -L``, ``-D``)."""
        if not all(c.isalnum() or c in "-.:_" for c in dest_host):
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "no name of a host"
            )
        command = _FORWARD.format(host=dest_host, port=dest_port)

        async def forward(reader: Reader, writer: Writer) -> None:
            try:
                await _flow(self._door, command, reader, writer, None)
            finally:
                writer.close()

        return forward


class _Session(asyncssh.SSHServerProcess[bytes]):
    """A command, a shell, or the guest's own server for files."""

    def __init__(self, door: OpenDoor) -> None:
        super().__init__(lambda process: _process(door, process), None, 3, False)
        self._door = door
        self._seat: asyncssh.SSHServerChannel[bytes] | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, chan: Any) -> None:
        self._seat = chan
        super().connection_made(chan)

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def session_started(self) -> None:
        seat = self._seat
        if seat is None or seat.get_subsystem() is None:
            super().session_started()
        else:
            self._task = asyncio.create_task(self._files(seat))

    async def _files(self, seat: asyncssh.SSHServerChannel[bytes]) -> None:
        streams = (
            asyncssh.SSHReader[bytes](self, seat),
            asyncssh.SSHWriter[bytes](self, seat),
            asyncssh.SSHWriter[bytes](self, seat, asyncssh.EXTENDED_DATA_STDERR),
        )
        try:
            seat.exit(await _flow(self._door, _SFTP, *streams))
        except NixosError as err:
            streams[2].write(_said(err))
            seat.exit(_GONE)


async def _process(door: OpenDoor, process: Process) -> None:
    try:
        if process.get_extra_info("username") != _ROOT:
            process.stderr.write(b"only root enters by this key: ssh root@...\n")
            process.exit(_GONE)
        elif process.term_type is not None:
            process.exit(await _on_terminal(door, process))
        else:
            command = process.command or "exec bash -l"
            streams = (process.stdin, process.stdout, process.stderr)
            process.exit(await _flow(door, command, *streams))
    except NixosError as err:
        process.stderr.write(_said(err))
        process.exit(_GONE)


def _said(err: NixosError) -> bytes:
    return f"pytest-nixos: {err.message}\n".encode()


async def _flow(
    door: OpenDoor, command: str, reader: Reader, writer: Writer, errors: Writer | None
) -> int:
    """Connect a client's streams to a command of the guest; return how that ended."""
    program = await asyncio.to_thread(GuestProgram, door, command)
    bringing = asyncio.create_task(_bring(program, reader))
    try:
        while (printed := await asyncio.to_thread(program.read)) is not None:
            if writer.is_closing():
                break  # the client has left this one of its sessions
            writer.write(printed.stdout)
            if errors is not None:
                errors.write(printed.stderr)
                await errors.drain()
            await writer.drain()
    except (BrokenPipeError, ConnectionError, asyncssh.Error):
        pass  # the client has left
    finally:
        bringing.cancel()
        await asyncio.to_thread(program.__exit__, None, None, None)
    return _GONE if program.exit_status is None else program.exit_status


async def _bring(program: GuestProgram, reader: Reader) -> None:
    try:
        while data := await reader.read(_CHUNK):
            while data:
                data = data[await asyncio.to_thread(program.write, data) :]
                if data:
                    await asyncio.sleep(_FULL_S)
    except (asyncssh.Error, ConnectionError):
        pass  # the client has left: nothing more comes
    await asyncio.to_thread(program.end_input)


async def _on_terminal(door: OpenDoor, process: Process) -> int:
    columns, rows, _, _ = process.term_size
    terminal = await asyncio.to_thread(
        lambda: GuestTerminal(
            door,
            command=process.command or "exec bash -l",
            rows=rows or 24,
            columns=columns or 80,
            term=process.term_type or "dumb",
        )
    )
    typing: asyncio.Task[bytes] | None = None
    try:
        typed, ended = b"", False
        while (printed := await asyncio.to_thread(terminal.exchange, typed)) is not None:
            typed = b""
            process.stdout.write(printed)
            await process.stdout.drain()
            if ended:
                await asyncio.sleep(_TYPED_S)
                continue
            typing = typing or asyncio.create_task(process.stdin.read(_CHUNK))
            done, _ = await asyncio.wait({typing}, timeout=_TYPED_S)
            if not done:
                continue
            finished, typing = typing, None
            try:
                typed = finished.result()
            except asyncssh.TerminalSizeChanged as size:
                await asyncio.to_thread(
                    lambda s: terminal.resize(rows=s.height, columns=s.width), size
                )
                continue
            if not typed:
                # Nothing more is typed: what reads on is told so, as by whoever types Ctrl-D.
                typed, ended = _END_OF_INPUT, True
    except (BrokenPipeError, ConnectionError, asyncssh.Error):
        pass  # the client has left
    finally:
        if typing is not None:
            typing.cancel()
        await asyncio.to_thread(terminal.__exit__, None, None, None)
    return terminal.exit_status or 0


def _carry(source: Callable[[], bytes], sink: Callable[[bytes], None], link: socket.socket) -> None:
    try:
        # Either end may be gone at any time: that is how a connection ends.
        with contextlib.suppress(OSError):
            while data := source():
                sink(data)
    finally:
        _end_link(link)


def _end_link(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
