"""A NATS client of a few lines: the text protocol, requests, and JetStream by its API subjects.

The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol; JetStream's API:
https://docs.nats.io/reference/reference-protocols/nats_api_reference.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from pytest_nixos import Deadline

if TYPE_CHECKING:
    import ssl

Json = Any

_LARGEST_LINE = 64 * 1024
_MESSAGE = re.compile(rb"^MSG (\S+) (\S+) (?:(\S+) )?(\d+)$")


class NatsError(Exception):
    """The server refused, closed the connection, or did not answer in time."""


class NatsClient:
    """One connection; not safe for several threads.

    :param connection: a connected socket, which the client takes over.
    :param credentials: members of ``CONNECT`` such as ``user`` and ``pass``.
    """

    def __init__(self, connection: socket.socket, credentials: Mapping[str, str]) -> None:
        self._socket = connection
        self._rest = b""
        self._subscriptions = 0
        self.info: Mapping[str, Json] = {}
        self._credentials = credentials

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()

    def open(self, deadline: Deadline) -> None:
        """Read the server's greeting, log in, and wait until it answers a ping.

        :raises NatsError: if the server refuses.
        """
        word, _, rest = self._line(deadline).partition(b" ")
        if word.upper() != b"INFO":
            raise NatsError(f"no NATS server: {word[:60]!r}")
        self.info = json.loads(rest)
        if self.info.get("tls_required"):
            self._socket = _strangers_tls().wrap_socket(self._socket)
        options = {
            "verbose": False,
            "pedantic": False,
            "lang": "python",
            "version": "1",
            "protocol": 1,
            "name": "pytest-nixos",
            **self._credentials,
        }
        self._send(b"CONNECT " + json.dumps(options).encode() + b"\r\nPING\r\n", deadline)
        while (line := self._line(deadline)) != b"PONG":
            _refuse_errors(line)

    def subscribe(self, subject: str, deadline: Deadline) -> None:
        """Subscribe, and wait until the server knows."""
        self._subscriptions += 1
        self._send(f"SUB {subject} {self._subscriptions}\r\nPING\r\n".encode(), deadline)
        while (line := self._line(deadline)) != b"PONG":
            _refuse_errors(line)

    def publish(self, subject: str, payload: bytes, deadline: Deadline, *, reply: str = "") -> None:
        """Publish a message."""
        words = " ".join(word for word in ("PUB", subject, reply, str(len(payload))) if word)
        self._send(words.encode() + b"\r\n" + payload + b"\r\n", deadline)

    def receive(self, deadline: Deadline) -> bytes:
        """Return the payload of the next message.

        :raises NatsError: if none comes in time.
        """
        while True:
            line = self._line(deadline)
            found = _MESSAGE.match(line)
            if found is not None:
                return self._exactly(int(found[4]) + 2, deadline)[:-2]
            if line == b"PING":
                self._send(b"PONG\r\n", deadline)
            _refuse_errors(line)

    def request(self, subject: str, body: Json, deadline: Deadline) -> Mapping[str, Json]:
        """Ask an API that answers JSON.

        :raises NatsError: if there is no answer in time.
        """
        inbox = f"_INBOX.{uuid.uuid4().hex}"
        self.subscribe(inbox, deadline)
        payload = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
        self.publish(subject, payload, deadline, reply=inbox)
        answer: Mapping[str, Json] = json.loads(self.receive(deadline) or b"{}")
        return answer

    def _send(self, data: bytes, deadline: Deadline) -> None:
        with _told():
            self._socket.settimeout(max(deadline.remaining_s, 0.01))
            self._socket.sendall(data)

    def _line(self, deadline: Deadline) -> bytes:
        while b"\r\n" not in self._rest:
            if len(self._rest) > _LARGEST_LINE:
                raise NatsError("the server sends a line without end")
            self._more(deadline)
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _exactly(self, size: int, deadline: Deadline) -> bytes:
        while len(self._rest) < size:
            self._more(deadline)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _more(self, deadline: Deadline) -> None:
        with _told():
            self._socket.settimeout(max(deadline.remaining_s, 0.01))
            data = self._socket.recv(_LARGEST_LINE)
        if not data:
            raise NatsError("the server closed the connection")
        self._rest += data


def _strangers_tls() -> ssl.SSLContext:
    """Speak TLS without proving who the server is, and without a certificate of our own."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _refuse_errors(line: bytes) -> None:
    if line.upper().startswith(b"-ERR"):
        raise NatsError(line.decode(errors="replace"))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise NatsError(str(err) or type(err).__name__) from err
