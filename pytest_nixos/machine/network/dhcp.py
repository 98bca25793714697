"""A DHCP server for the one guest of a private link, so that a host with ``networking.useDHCP``
boots as it would.

Without an answer dhcpcd holds up ``network.target`` for about eight seconds and then makes up an
address. Read from RFC 2131 (protocol), RFC 2132 (options) and RFC 4039 (rapid commit). No router
and no name server is offered where a guest has no way out.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from pytest_nixos.errors import NixosError
from pytest_nixos.local.namespace import in_network_of

__all__ = ["DhcpServer", "Lease", "answer"]

_MAGIC = b"\x63\x82\x53\x63"
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_SERVER_PORT, _CLIENT_PORT = 67, 68
_LARGEST = 1500
_FOR_EVER = 0xFFFFFFFF
_REQUEST, _REPLY = 1, 2
_SMALLEST_REPLY = 300  # RFC 1542, 2.1: what relays and old clients expect


class _Option(enum.IntEnum):
    PAD = 0
    SUBNET_MASK = 1
    ROUTER = 3
    NAME_SERVER = 6
    TIME_SERVER = 42
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    MESSAGE_TYPE = 53
    SERVER = 54
    RAPID_COMMIT = 80
    END = 255


class _Message(enum.IntEnum):
    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5
    NAK = 6
    INFORM = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The one lease that there is.

    :param hardware: the only hardware address that is answered, of several on one segment; empty
        for all.
    :param serves_names: whether the server is the guest's router, name server and time server too.
    """

    server: IPv4Address
    guest: IPv4Interface
    hardware: bytes = b""
    serves_names: bool = False


def answer(packet: bytes, lease: Lease) -> bytes | None:
    """Answer one client message; ``None`` to what is malformed, not for us, or needs no answer."""
    if len(packet) < _HEADER.size + len(_MAGIC) or packet[_HEADER.size :][:4] != _MAGIC:
        return None
    op, htype, hlen, _, xid, _, flags, ciaddr, _, _, giaddr, chaddr, _, _ = _HEADER.unpack_from(
        packet
    )
    options = _parse_options(packet[_HEADER.size + len(_MAGIC) :])
    kind = _reply_kind(options, ciaddr, lease)
    if op != _REQUEST or kind is None or chaddr[: len(lease.hardware)] != lease.hardware:
        return None
    informs = options.get(_Option.MESSAGE_TYPE) == bytes([_Message.INFORM])
    gives = kind is not _Message.NAK and not informs
    yiaddr = lease.guest.ip.packed if gives else bytes(4)
    header = _HEADER.pack(
        *(_REPLY, htype, hlen, 0, xid, 0, flags, ciaddr if informs else bytes(4), yiaddr),
        *(bytes(4), giaddr, chaddr, b"", b""),
    )
    given = [(_Option.MESSAGE_TYPE, bytes([kind])), (_Option.SERVER, lease.server.packed)]
    if kind is not _Message.NAK:
        given.append((_Option.SUBNET_MASK, lease.guest.netmask.packed))
        if lease.serves_names:
            roles = (_Option.ROUTER, _Option.NAME_SERVER, _Option.TIME_SERVER)
            given += [(role, lease.server.packed) for role in roles]
    if gives:
        given.append((_Option.LEASE_TIME, struct.pack("!I", _FOR_EVER)))
    if _is_rapid(options):
        given.append((_Option.RAPID_COMMIT, b""))
    body = b"".join(bytes([code, len(value)]) + value for code, value in given)
    return (header + _MAGIC + body + bytes([_Option.END])).ljust(_SMALLEST_REPLY, b"\0")


class DhcpServer:
    """Answers on one interface of another network namespace until it is closed.

    :param pid: a process in that namespace.
    """

    def __init__(self, pid: int, interface: str, lease: Lease) -> None:
        self._lease = lease
        self._socket = in_network_of(pid, lambda: _listen(interface))
        self._thread = threading.Thread(target=self._serve, name="nixos-dhcp", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; safe to call twice."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=1.0)

    def _serve(self) -> None:
        # A closed socket, or a namespace that went away, ends it.
        with contextlib.suppress(OSError, NixosError):
            while True:
                packet = self._socket.recv(_LARGEST)
                reply = answer(packet, self._lease)
                if reply is not None:
                    self._socket.sendto(reply, ("255.255.255.255", _CLIENT_PORT))


def _listen(interface: str) -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        # Several servers share a segment; each answers its own guest.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        server.bind(("", _SERVER_PORT))
    except OSError:
        server.close()
        raise
    return server


def _reply_kind(options: dict[int, bytes], ciaddr: bytes, lease: Lease) -> _Message | None:
    kind = options.get(_Option.MESSAGE_TYPE, b"")
    server = options.get(_Option.SERVER, lease.server.packed)
    if len(kind) != 1 or server != lease.server.packed:
        return None
    if kind[0] == _Message.DISCOVER:
        return _Message.ACK if _is_rapid(options) else _Message.OFFER
    if kind[0] == _Message.INFORM:
        return _Message.ACK
    if kind[0] == _Message.REQUEST:
        wanted = options.get(_Option.REQUESTED_ADDRESS, ciaddr)
        return _Message.ACK if wanted == lease.guest.ip.packed else _Message.NAK
    return None


def _is_rapid(options: dict[int, bytes]) -> bool:
    discovers = options.get(_Option.MESSAGE_TYPE) == bytes([_Message.DISCOVER])
    return discovers and _Option.RAPID_COMMIT in options


def _parse_options(data: bytes) -> dict[int, bytes]:
    """Read type-length-value options; what is cut off does not count."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(data) and data[at] != _Option.END:
        if data[at] == _Option.PAD:
            at += 1
            continue
        length = data[at + 1]
        value = data[at + 2 : at + 2 + length]
        if len(value) == length:
            found[data[at]] = value
        at += 2 + length
    return found
