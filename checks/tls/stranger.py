"""A client without a certificate, and what a server says to it."""

from __future__ import annotations

import json
import socket
import ssl

from pytest_nixos import Deadline

_LARGEST = 64 * 1024
_HELLO = b'CONNECT {"verbose":false,"pedantic":false,"name":"stranger"}\r\nPING\r\n'


def nats_answer(connection: socket.socket, deadline: Deadline) -> tuple[bool, str]:
    """Talk to a NATS server as a stranger.

    :return: whether it refused for want of a certificate, and what happened.
    """
    connection.settimeout(max(deadline.remaining_s, 0.01))
    try:
        greeting = _line(connection)
    except OSError as err:
        return False, f"no greeting: {err}"
    word, _, rest = greeting.partition(b" ")
    if word.upper() != b"INFO":
        return False, f"no NATS server: {greeting[:60]!r}"
    if not json.loads(rest).get("tls_required"):
        connection.sendall(_HELLO)
        return False, f"it speaks without TLS and answers {_line(connection)[:80]!r}"
    try:
        with _without_certificate().wrap_socket(connection) as secured:
            secured.sendall(_HELLO)
            said = _line(secured)
    except ssl.SSLError as err:
        wanted = "CERTIFICATE" in (err.reason or "") or "HANDSHAKE" in (err.reason or "")
        return wanted, f"TLS: {err.reason}"
    except OSError as err:
        return False, f"the connection broke: {err}"
    if not said:
        return False, "the connection was closed without a word"
    return False, f"it answers {said[:80]!r}"


def _without_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _line(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n" not in data and len(data) < _LARGEST:
        more = connection.recv(4096)
        if not more:
            break
        data += more
    return data.partition(b"\r\n")[0]
