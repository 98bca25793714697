"""Ports of a :class:`~pytest_nixos.machine.cluster.switch.Switch`: where frames come in and go
out, for one thread.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

__all__ = ["PacketPort", "Port", "Ready", "StreamPort", "restored_tag"]

_LONGEST_FRAME = 1 << 16
_READ = 1 << 18
# A guest that takes no frames loses them, as at a switch whose buffer is full.
_MOST_WAITING = 4 << 20
# linux/if_packet.h: struct tpacket_auxdata, and the kernel's wish to hand VLAN tags over beside the frame.
_SOL_PACKET, _AUXDATA = 263, 8
_AUX = struct.Struct("=IIIHHHH")
_TAG_IS_VALID, _TAG_HAS_KIND = 0x10, 0x40
_USUAL_TAG = 0x8100

#: Told which of a port's sockets to watch: a socket, and what to call when it can be read.
Ready = Callable[[socket.socket, Callable[[], None]], None]


class Port(Protocol):
    """One place on a network."""

    name: str

    def watch(self, begin: Ready, end: Callable[[socket.socket], None]) -> None:
        """Have the port's sockets watched; `begin` and `end` are called again as these change."""
        ...

    def send(self, frame: bytes) -> None:
        """Send a frame out; what cannot be taken is lost."""
        ...

    def close(self) -> None:
        """Give the sockets up."""
        ...


class StreamPort:
    """A network card of a VM: QEMU connects to a socket (``-netdev stream``), and each frame follows
    its length, 4 bytes in network order.

    :param path: of the socket; it waits for QEMU, and for the next one when that is started again.
    :param heard: called with each frame that the card sends.
    """

    def __init__(self, name: str, path: Path, heard: Callable[[bytes], None]) -> None:
        self.name = name
        self._heard = heard
        self._received, self._waiting = bytearray(), bytearray()
        self._card: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        self._listener.listen(1)

    def watch(self, begin: Ready, end: Callable[[socket.socket], None]) -> None:
        """See :class:`Port`."""
        self._begin, self._end = begin, end
        begin(self._listener, self._accept)

    def send(self, frame: bytes) -> None:
        """See :class:`Port`."""
        if self._card is None or len(self._waiting) > _MOST_WAITING:
            return
        self._waiting += struct.pack("!I", len(frame)) + frame
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the card takes it."""
        if self._card is None or not self._waiting:
            return
        try:
            del self._waiting[: self._card.send(self._waiting)]
        except BlockingIOError:
            return
        except OSError:
            self._hang_up()

    @property
    def is_waiting(self) -> bool:
        """Whether the card has frames to take yet."""
        return bool(self._waiting)

    def close(self) -> None:
        """See :class:`Port`."""
        if self._card is not None:
            self._card.close()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            card, _ = self._listener.accept()
            self._hang_up()
            card.setblocking(False)
            self._card = card
            self._begin(card, self._read)

    def _read(self) -> None:
        if self._card is None:
            return
        try:
            data = self._card.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        self._received += data
        for frame in self._frames():
            self._heard(frame)

    def _frames(self) -> Iterator[bytes]:
        while len(self._received) >= 4:
            (size,) = struct.unpack_from("!I", self._received)
            if size > _LONGEST_FRAME:
                self._hang_up()
                return
            if len(self._received) < 4 + size:
                return
            frame = bytes(self._received[4 : 4 + size])
            del self._received[: 4 + size]
            yield frame

    def _hang_up(self) -> None:
        if self._card is not None:
            self._end(self._card)
            self._card.close()
            self._card = None
        self._received.clear()
        self._waiting.clear()


class PacketPort:
    """A network interface of this machine's kernel, heard beside its own stack (packet(7)).

    :param interface: a raw packet socket that is bound to it.
    """

    def __init__(self, name: str, interface: socket.socket, heard: Callable[[bytes], None]) -> None:
        self.name = name
        self._heard = heard
        self._interface = interface
        interface.setblocking(False)
        interface.setsockopt(_SOL_PACKET, _AUXDATA, 1)

    def watch(self, begin: Ready, _end: Callable[[socket.socket], None]) -> None:
        """See :class:`Port`."""
        begin(self._interface, self._read)

    def send(self, frame: bytes) -> None:
        """See :class:`Port`."""
        with contextlib.suppress(OSError):
            self._interface.send(frame)

    def close(self) -> None:
        """See :class:`Port`."""
        self._interface.close()

    def _read(self) -> None:
        try:
            frame, beside, _, about = self._interface.recvmsg(_LONGEST_FRAME, _READ)
        except OSError:
            # Once told: the interface is down, and may come up again, or it went with its machine.
            return
        if about[2] != socket.PACKET_OUTGOING:
            tags = [
                data for level, kind, data in beside if (level, kind) == (_SOL_PACKET, _AUXDATA)
            ]
            self._heard(restored_tag(frame, tags[0]) if tags else frame)


def restored_tag(frame: bytes, auxiliary: bytes) -> bytes:
    """Put the VLAN tag back that the kernel has taken out of a frame."""
    if len(auxiliary) < _AUX.size:
        return frame
    status, _, _, _, _, tag, kind = _AUX.unpack_from(auxiliary)
    if not status & _TAG_IS_VALID:
        return frame
    return (
        frame[:12]
        + struct.pack("!HH", kind if status & _TAG_HAS_KIND else _USUAL_TAG, tag)
        + frame[12:]
    )
