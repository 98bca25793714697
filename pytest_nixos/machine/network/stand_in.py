"""A small internet of the run at the other end of a guest's link: names that resolve, and the time.

Every name has one address, that of the server; services that are not served refuse the connection
at once, where a link without a way out would keep a program waiting. DNS is dnslib's; the time is
told as RFC 4330 (SNTP) wants it. The sockets are made in the network namespace of that end, so that
nothing of this machine listens.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from pytest_nixos.errors import NixosError
from pytest_nixos.local.namespace import in_network_of

__all__ = ["StandIn", "answer_name", "answer_time", "name_resolver"]

_DNS_PORT, _NTP_PORT = 53, 123
_LARGEST = 4096
_TTL_S = 60
# Names that no internet has (RFC 6761), and questions about addresses.
_UNKNOWN = ("invalid", "test", "local", "onion", "arpa")
_NTP_SIZE = 48
_NTP_EPOCH_S = 2_208_988_800
_VERSION_4_SERVER = 0b00_100_100
_CLIENT = 3
_STRATUM, _POLL, _PRECISION = 2, 6, 0xEC
_FRACTION = 1 << 32


def answer_name(question: bytes, address: IPv4Address) -> bytes | None:
    """Answer one question to a name server; ``None`` to what is no question.

    :param address: what every name has.
    """
    try:
        asked = DNSRecord.parse(question)
    except Exception:  # noqa: BLE001 - dnslib raises whatever a malformed packet leads it to
        return None
    if asked.header.qr or not asked.questions:
        return None
    reply = asked.reply(aa=1, ra=1)
    name = str(asked.q.qname).rstrip(".").lower()
    if "." not in name or name.rpartition(".")[2] in _UNKNOWN:
        reply.header.rcode = RCODE.NXDOMAIN
    elif asked.q.qtype in (QTYPE.A, QTYPE.ANY):
        reply.add_answer(RR(asked.q.qname, QTYPE.A, rdata=A(str(address)), ttl=_TTL_S))
    return bytes(reply.pack())


def answer_time(question: bytes, now_s: float) -> bytes | None:
    """Answer one question to a time server; ``None`` to what is no question.

    :param now_s: seconds since 1970.
    """
    if len(question) < _NTP_SIZE or question[0] & 7 != _CLIENT:
        return None
    whole, part = divmod(now_s + _NTP_EPOCH_S, 1)
    stamp = struct.pack("!II", int(whole) % _FRACTION, int(part * _FRACTION))
    head = struct.pack(
        "!BBBBII4s", _VERSION_4_SERVER, _STRATUM, _POLL, _PRECISION, 0, 0, b"\x7f\x7f\x01\x00"
    )
    # Reference, originate (the client's own), receive and transmit.
    return head + stamp + question[40:48] + stamp + stamp


def name_resolver(root: Path, server: IPv4Address) -> None:
    """Name the stand-in in a guest's ``/etc/resolv.conf``, for a host that leaves that file to who
    starts it, as NixOS in a container does.
    """
    path = root / "etc" / "resolv.conf"
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(f"nameserver {server}\n")


class StandIn:
    """Answers in another network namespace until it is closed.

    :param pid: a process in that namespace.
    :param address: of the server there, and of every name.
    """

    def __init__(self, pid: int, address: IPv4Address) -> None:
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listen(pid, address, _DNS_PORT, lambda asked: answer_name(asked, address))
        self._listen(pid, address, _NTP_PORT, lambda asked: answer_time(asked, time.time()))

    def close(self) -> None:
        """Stop answering; safe to call twice."""
        for made in self._sockets:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
            made.close()
        for thread in self._threads:
            thread.join(timeout=1.0)

    def _listen(
        self, pid: int, address: IPv4Address, port: int, answer: Callable[[bytes], bytes | None]
    ) -> None:
        def bound() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                made.bind((str(address), port))
            except OSError:
                made.close()
                raise
            return made

        made = in_network_of(pid, bound)
        self._sockets.append(made)
        thread = threading.Thread(
            target=_serve, args=(made, answer), name=f"nixos-stand-in-{port}", daemon=True
        )
        self._threads.append(thread)
        thread.start()


def _serve(made: socket.socket, answer: Callable[[bytes], bytes | None]) -> None:
    # A closed socket, or a namespace that went away, ends it.
    with contextlib.suppress(OSError, NixosError):
        while True:
            asked, sender = made.recvfrom(_LARGEST)
            reply = answer(asked)
            if reply is not None:
                made.sendto(reply, sender)
