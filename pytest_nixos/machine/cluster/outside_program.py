"""A stranger's place beside a network, run as a program of its own in a network namespace.

It makes sockets there for whoever started it, who could not enter the namespace without root:
raw ones for the network's switch, and TCP connections. Arguments: the path of a Unix socket of the
caller. A request is one JSON list, the answer ``ok`` with a descriptor, or what went wrong.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import socket
import struct
import sys

__all__ = ["main"]

_EVERY_PROTOCOL = 3  # ETH_P_ALL, linux/if_ether.h
_ROOM = 1 << 22
_MOST = 4096
# linux/sockios.h and linux/ethtool.h: TX sums, TSO, GSO. The kernel leaves checksums and the cutting
# of segments to the card, which here is none.
_SIOCETHTOOL = 0x8946
_OFFLOADS = (0x17, 0x1F, 0x24)


def plain_frames(interface: str) -> None:
    """Have an interface's frames made whole before they are sent: with checksums, in their size."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in _OFFLOADS:
            place = ctypes.create_string_buffer(struct.pack("=II", command, 0))
            request = struct.pack("=16sQ", interface.encode(), ctypes.addressof(place))
            fcntl.ioctl(any_socket.fileno(), _SIOCETHTOOL, request.ljust(40, b"\0"))


def raw_socket(interface: str) -> socket.socket:
    """Return a socket that hears and sends frames of an interface."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    made.bind((interface, _EVERY_PROTOCOL))
    return made


def main(path: str) -> None:
    """Serve requests until the caller hangs up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(path)
        while request := caller.recv(_MOST):
            kind, *arguments = json.loads(request)
            try:
                made = _made(kind, *arguments)
            except OSError as err:
                caller.send((err.strerror or str(err) or "no answer in time").encode())
                continue
            with made:
                socket.send_fds(caller, [b"ok"], [made.fileno()])


def _made(kind: str, *arguments: str | float) -> socket.socket:
    if kind == "raw":
        return raw_socket(str(arguments[0]))
    if kind == "plain":
        plain_frames(str(arguments[0]))
        return raw_socket(str(arguments[1]))
    address, port, timeout_s = arguments
    return socket.create_connection((str(address), int(port)), timeout=float(timeout_s))


if __name__ == "__main__":
    main(sys.argv[1])
