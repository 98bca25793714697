"""A small internet of the run at the other end of a guest's link: names that resolve, and the time.

Every name has one address, that of the server; services that are not served refuse the connection
at once, where a link without a way out would keep a program waiting. DNS is dnslib's; the time is
told as RFC 4330 (SNTP) wants it. The sockets are made in the network namespace of that end, so that
nothing of this machine listens: of a container by :class:`StandIn`, which enters it; of a VM by the
sandbox of its QEMU, which hands them over (:class:`HandedOver`). QEMU's user network passes on to
there what the guest sends to any address, and every address is one of that network.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

from pytest_nixos.errors import NixosError
from pytest_nixos.local.namespace import in_network_of

__all__ = ["HandedOver", "StandIn", "answer_name", "answer_time", "name_resolver"]

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
_HOST_OF_USER_NETWORK = IPv4Address("10.0.2.2")  # qemu(1), -netdev user,host=
_IP_PKTINFO = 8  # linux/in.h
_PKTINFO = struct.Struct("i4s4s")  # interface, local address, address of the packet


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
        def bound() -> list[socket.socket]:
            with contextlib.ExitStack() as stack:
                made = [
                    stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                    for _ in (_DNS_PORT, _NTP_PORT)
                ]
                for one, port in zip(made, (_DNS_PORT, _NTP_PORT), strict=True):
                    one.bind((str(address), port))
                stack.pop_all()
                return made

        self._answers = _Answers(in_network_of(pid, bound), address)

    def close(self) -> None:
        """Stop answering; safe to call twice."""
        self._answers.close()


class HandedOver:
    """Answers with the sockets that a sandbox hands over, and those of the next one once that is
    started, until it is closed.

    :param path: of the Unix socket on which they are awaited.
    :param address: of every name; as it is, that of this machine in QEMU's user network.
    """

    def __init__(self, path: Path, address: IPv4Address = _HOST_OF_USER_NETWORK) -> None:
        self._path, self._address = path, address
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="nixos-stand-in", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; safe to call twice."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=2.0)
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        answers = _Answers([], self._address)
        # The listener that is closed ends it.
        with contextlib.suppress(OSError):
            while True:
                giver, _ = self._listener.accept()
                with giver:
                    _, given, _, _ = socket.recv_fds(giver, 1, 2)
                answers.close()
                answers = _Answers([socket.socket(fileno=fd) for fd in given], self._address)
        answers.close()


class _Answers:
    """Answers on a socket for names and one for the time until it is closed."""

    def __init__(self, sockets: Sequence[socket.socket], address: IPv4Address) -> None:
        self._sockets = sockets
        answers = (lambda asked: answer_name(asked, address), _time_now)
        self._threads = [
            threading.Thread(target=_serve, args=pair, name="nixos-stand-in", daemon=True)
            for pair in zip(sockets, answers, strict=False)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        for made in self._sockets:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
            made.close()
        for thread in self._threads:
            thread.join(timeout=1.0)


def _time_now(question: bytes) -> bytes | None:
    return answer_time(question, time.time())


def _serve(made: socket.socket, answer: Callable[[bytes], bytes | None]) -> None:
    # A closed socket, or a namespace that went away, ends it.
    with contextlib.suppress(OSError, NixosError):
        made.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        while True:
            asked, about, _, sender = made.recvmsg(_LARGEST, socket.CMSG_SPACE(_PKTINFO.size))
            reply = answer(asked)
            if reply is not None:
                come_from = [(level, kind, _same_address(data)) for level, kind, data in about]
                made.sendmsg([reply], come_from, 0, sender)


def _same_address(packet_info: bytes) -> bytes:
    """Have the answer come from the address that was asked (IP_PKTINFO, ip(7))."""
    _, _, asked = _PKTINFO.unpack(packet_info)
    return _PKTINFO.pack(0, asked, bytes(4))
