"""The wire to a guest's network card: frames in and out of QEMU's network filters."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline

__all__ = ["FrameLink", "PacketLink", "Wire", "filter_argv", "user_networks"]

# What a run script calls its user networks; nixpkgs' qemu-vm.nix has one, "user.0".
_NETDEV = re.compile(r"-netdev\s+[\"']?user,(?:[^\s\"']*,)?id=([\w.-]+)")
_LONGEST_FRAME = 1 << 16
_EVERY_PROTOCOL = 3  # ETH_P_ALL, linux/if_ether.h
_ROOM = 1 << 23


def user_networks(run_script: str) -> tuple[str, ...]:
    """Return the ids of a run script's user networks, in their order."""
    return tuple(dict.fromkeys(_NETDEV.findall(run_script)))


def filter_argv(run_dir: Path, netdevs: Sequence[str]) -> tuple[str, ...]:
    """Build QEMU's arguments for a second host on each of the guest's networks, beside QEMU's own.

    ``queue=tx`` is what the netdev sends to the guest, ``queue=rx`` what it receives from it;
    qemu(1), ``filter-mirror``. Each frame on a socket follows its length, 4 bytes in network order.

    :param netdevs: ids of the networks; QEMU refuses one that is not there.
    """
    argv: list[str] = []
    for number, netdev in enumerate(netdevs):
        name = f"pytest-nixos-net{number or ''}"
        ends = {"in": _into(run_dir, number), "out": _out(run_dir, number)}
        for way, path in ends.items():
            argv += ["-chardev", f"socket,id={name}-{way},path={path},server=on,wait=off"]
        argv += [
            "-object",
            f"filter-mirror,id={name}-mirror,netdev={netdev},queue=rx,outdev={name}-out",
            "-object",
            f"filter-redirector,id={name}-inject,netdev={netdev},queue=tx,indev={name}-in",
        ]
    return tuple(argv)


class Wire(Protocol):
    """Frames to a guest's network card and from it; for one thread at a time."""

    def listening(self) -> contextlib.AbstractContextManager[Wire]:
        """Hear the guest inside this context."""
        ...

    def send(self, frames: list[bytes], *, deadline: Deadline) -> None:
        """Send frames in order."""
        ...

    def frames(self, *, limit_s: float) -> Iterator[bytes]:
        """Give the frames that the guest has sent; wait at most `limit_s` seconds for the first."""
        ...

    def close(self) -> None:
        """Leave the network."""
        ...


class PacketLink:
    """Sends frames through a network interface and hears what comes in by it, beside the kernel
    (packet(7)).

    :param enter: runs a function where the interface is, for example in another network namespace.
    """

    def __init__(
        self, interface: str, enter: Callable[[Callable[[], socket.socket]], socket.socket]
    ) -> None:
        self._interface = interface
        self._enter = enter
        self._socket: socket.socket | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[Self]:
        """Hear the guest inside this context.

        :raises TransportError: if the interface is gone or may not be listened to.
        """
        with self._enter(self._open) as made:
            self._socket = made
            try:
                yield self
            finally:
                self._socket = None

    def close(self) -> None:
        """Nothing stays open between two uses."""

    def send(self, frames: list[bytes], *, deadline: Deadline) -> None:
        """Send frames in order.

        :raises TransportError: if the interface takes none by `deadline`.
        """
        link = self._live()
        for frame in frames:
            while True:
                try:
                    link.send(frame)
                    break
                except (BlockingIOError, InterruptedError):
                    if deadline.expired:
                        raise TransportError(
                            f"{self._interface} took no frames for {deadline.limit_s:g} s",
                            remedy="look whether the machine hangs",
                        ) from None
                    select.select([], [link], [], min(0.1, deadline.remaining_s))
                except OSError as err:
                    raise _ended() from err

    def frames(self, *, limit_s: float) -> Iterator[bytes]:
        """Give the frames that came in; wait at most `limit_s` seconds for the first."""
        link = self._live()
        wait_s = limit_s
        while select.select([link], [], [], wait_s)[0]:
            wait_s = 0.0
            try:
                data, about = link.recvfrom(_LONGEST_FRAME)
            except BlockingIOError:
                return
            except OSError as err:
                raise _ended() from err
            if about[2] != socket.PACKET_OUTGOING:
                yield data

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
            made.bind((self._interface, _EVERY_PROTOCOL))
        except OSError as err:
            made.close()
            raise TransportError(
                f"{self._interface}: cannot listen to the guest's network: {err.strerror}",
                remedy="the machine ended, or the program lacks CAP_NET_RAW in its network",
            ) from err
        made.setblocking(False)
        return made

    def _live(self) -> socket.socket:
        if self._socket is None:
            raise TransportError(
                "the guest's network is not listened to",
                remedy="probe a machine only while it runs",
            )
        return self._socket


class FrameLink:
    """Sends frames to the guest and hears what it sends; for one thread at a time.

    :param run_dir: the machine's directory, as given to :func:`filter_argv`.
    :param number: the network's place among those given there.
    """

    def __init__(self, run_dir: Path, number: int = 0) -> None:
        self._run_dir = run_dir
        self._number = number
        self._received = bytearray()
        self._to_guest: socket.socket | None = None
        self._from_guest: socket.socket | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[Self]:
        """Hear the guest inside this context; QEMU would wait for a listener that does not listen.

        :raises TransportError: if QEMU does not serve the sockets.
        """
        with _connected(_out(self._run_dir, self._number)) as listener:
            self._from_guest = listener
            if self._to_guest is None:
                # It stays until the machine ends: QEMU's filter-redirector never reads again once
                # it was closed.
                self._to_guest = _connected(_into(self._run_dir, self._number))
                weakref.finalize(self, self._to_guest.close)
            try:
                yield self
            finally:
                self._from_guest = None
                self._received.clear()

    def close(self) -> None:
        """Leave the network; there is no way back."""
        if self._to_guest is not None:
            self._to_guest.close()

    def send(self, frames: list[bytes], *, deadline: Deadline) -> None:
        """Send frames in order; QEMU is never made to wait for us while it waits for the guest.

        :raises TransportError: if the machine ended or does not take them by `deadline`.
        """
        rest = memoryview(b"".join(struct.pack("!I", len(frame)) + frame for frame in frames))
        while rest:
            readable, writable = self._wait(deadline.remaining_s, to_send=True)
            if not readable and not writable:
                raise TransportError(
                    f"the guest's network card took no frames for {deadline.limit_s:g} s",
                    remedy="look whether the machine hangs",
                )
            if readable:
                self._receive()
            if writable:
                try:
                    rest = rest[self._ends()[1].send(rest) :]
                except BlockingIOError:
                    continue
                except OSError as err:
                    raise _ended() from err

    def frames(self, *, limit_s: float) -> Iterator[bytes]:
        """Give the frames that the guest has sent; wait at most `limit_s` seconds for the first.

        :raises TransportError: if the machine ended.
        """
        if len(self._received) < 4 and self._wait(limit_s, to_send=False)[0]:
            self._receive()
        while len(self._received) >= 4:
            (size,) = struct.unpack_from("!I", self._received)
            if size > _LONGEST_FRAME:
                raise TransportError(
                    f"QEMU's filter-mirror told of a frame of {size} bytes",
                    remedy="report this as a bug of pytest-nixos, with QEMU's version",
                )
            if len(self._received) < 4 + size:
                if self._wait(limit_s, to_send=False)[0]:
                    self._receive()
                    continue
                return
            frame = bytes(self._received[4 : 4 + size])
            del self._received[: 4 + size]
            yield frame

    def _wait(self, limit_s: float, *, to_send: bool) -> tuple[bool, bool]:
        listener, speaker = self._ends()
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        if to_send:
            poller.register(speaker, select.POLLOUT)
        ready = {descriptor for descriptor, _ in poller.poll(1000 * limit_s)}
        return listener.fileno() in ready, speaker.fileno() in ready

    def _ends(self) -> tuple[socket.socket, socket.socket]:
        if self._from_guest is None or self._to_guest is None or self._to_guest.fileno() < 0:
            raise TransportError(
                "the guest's network is not listened to",
                remedy="probe a machine only while it runs",
            )
        return self._from_guest, self._to_guest

    def _receive(self) -> None:
        try:
            data = self._ends()[0].recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise _ended()
        self._received += data


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as err:
        connection.close()
        raise TransportError(
            f"{path}: cannot reach the guest's network: {err.strerror}",
            remedy="the machine ended, or its run script has no such network",
        ) from err
    connection.setblocking(False)
    return connection


def _ended() -> TransportError:
    return TransportError(
        "the machine ended while its network was probed",
        remedy="read the end of the machine's console",
    )


def _into(run_dir: Path, number: int) -> Path:
    return run_dir / f"net{number or ''}-in.sock"


def _out(run_dir: Path, number: int) -> Path:
    return run_dir / f"net{number or ''}-out.sock"
