"""Router advertisements for the guest of a private link, so that a host that waits for IPv6 is
online as at home.

Without one systemd-networkd and dhcpcd wait for a router until they give up. Read from RFC 4861
(messages, 4.1, 4.2 and 6.2), RFC 4862 (addresses) and RFC 8106 (name servers). Frames are our own
(packet(7)): the kernel would not send from a link-local address that it still tries out.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from pytest_nixos.errors import NixosError
from pytest_nixos.local.namespace import in_network_of
from pytest_nixos.machine.network.frames import icmpv6_message

__all__ = ["Advertisement", "Advertiser", "advertisement", "is_solicitation", "link_local"]

_ALL_NODES = IPv6Address("ff02::1")
_ALL_NODES_MAC = b"\x33\x33\x00\x00\x00\x01"
_IPV6_FRAMES = 0x86DD
_ETHERNET, _IP_HEAD = 14, 40
_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 133, 134
_HOPS, _ROUTER_LIFETIME_S, _FOR_EVER = 64, 1800, 0xFFFFFFFF
_SOURCE_MAC, _PREFIX, _NAME_SERVERS = 1, 3, 25
_ON_LINK_AUTONOMOUS = 0xC0
_INTERVAL_S = 30.0
_LONGEST = 1514
_SIOCGIFHWADDR = 0x8927


@dataclass(frozen=True, slots=True, kw_only=True)
class Advertisement:
    """What the link offers.

    :param prefix: guests take an address of it by themselves.
    :param is_router: whether there is a way out by us; without, guests get addresses only.
    :param name_server: ``None`` where there is none.
    """

    prefix: IPv6Network
    is_router: bool = False
    name_server: IPv6Address | None = None


def advertisement(mac: bytes, offer: Advertisement) -> bytes:
    """Build the frame of one advertisement to all nodes of the link.

    :param mac: the sender's hardware address.
    """
    lifetime = _ROUTER_LIFETIME_S if offer.is_router else 0
    body = struct.pack("!BBHBBHII", _ADVERTISEMENT, 0, 0, _HOPS, 0, lifetime, 0, 0)
    body += bytes([_SOURCE_MAC, 1]) + mac
    body += struct.pack(
        "!BBBBIII", _PREFIX, 4, offer.prefix.prefixlen, _ON_LINK_AUTONOMOUS, _FOR_EVER, _FOR_EVER, 0
    )
    body += offer.prefix.network_address.packed
    if offer.name_server is not None:
        body += struct.pack("!BBHI", _NAME_SERVERS, 3, 0, _FOR_EVER) + offer.name_server.packed
    return icmpv6_message((_ALL_NODES_MAC, mac), link_local(mac), _ALL_NODES, body)


def is_solicitation(frame: bytes) -> bool:
    """Whether a frame asks for routers."""
    body = frame[_ETHERNET + _IP_HEAD :]
    return (
        frame[12:14] == struct.pack("!H", _IPV6_FRAMES)
        and frame[_ETHERNET + 6 : _ETHERNET + 7] == bytes([_ICMPV6])
        and body[:1] == bytes([_SOLICITATION])
    )


def link_local(mac: bytes) -> IPv6Address:
    """Return the address that a hardware address has on its link (RFC 4291, appendix A)."""
    identifier = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)


class Advertiser:
    """Advertises on one interface of another network namespace until it is closed: when asked,
    and from time to time.

    :param pid: a process in that namespace.
    """

    def __init__(self, pid: int, interface: str, offer: Advertisement) -> None:
        self._socket, mac = in_network_of(pid, lambda: _listen(interface))
        self._frame = advertisement(mac, offer)
        self._closing, self._closed = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="nixos-router", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop advertising; safe to call twice."""
        self._closing.close()
        self._thread.join(timeout=2.0)
        self._socket.close()
        self._closed.close()

    def _serve(self) -> None:
        next_s = time.monotonic()
        news = select.poll()
        for one in (self._socket, self._closed):
            news.register(one, select.POLLIN)
        closed = self._closed.fileno()
        # A namespace that went away ends it.
        with contextlib.suppress(OSError, NixosError, ValueError):
            while True:
                if time.monotonic() >= next_s:
                    self._send()
                    next_s = time.monotonic() + _INTERVAL_S
                ready = dict(news.poll(max(0.0, next_s - time.monotonic()) * 1000))
                if closed in ready:
                    return
                if ready and is_solicitation(self._socket.recv(_LONGEST)):
                    self._send()

    def _send(self) -> None:
        # While the other end of the link is down nobody would hear it.
        with contextlib.suppress(OSError):
            self._socket.send(self._frame)


def _listen(interface: str) -> tuple[socket.socket, bytes]:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_IPV6_FRAMES))
    try:
        made.bind((interface, _IPV6_FRAMES))
        request = struct.pack("256s", interface.encode())
        mac = fcntl.ioctl(made.fileno(), _SIOCGIFHWADDR, request)[18:24]
    except OSError:
        made.close()
        raise
    return made, mac
