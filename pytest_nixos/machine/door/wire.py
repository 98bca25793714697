"""One question and one answer on a machine's door: a line of JSON, and the bytes that it counts."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["receive", "send"]

_CHUNK = 1 << 18
_LONGEST_HEAD = 1 << 22


def send(connection: socket.socket, head: Mapping[str, Any], *parts: bytes) -> None:
    """Send `head` and `parts`.

    :raises OSError: if the other end is gone.
    """
    line = json.dumps({**head, "sizes": [len(part) for part in parts]}).encode() + b"\n"
    connection.sendall(b"".join((line, *parts)))


def receive(connection: socket.socket) -> tuple[dict[str, Any], Sequence[bytes]]:
    """Wait for what :func:`send` sent.

    :raises OSError: if the connection ends before it is whole, or it is none of ours.
    """
    data = bytearray()
    while b"\n" not in data:
        if len(data) > _LONGEST_HEAD:
            raise OSError("no head")
        data += _some(connection)
    line, _, rest = bytes(data).partition(b"\n")
    try:
        head = json.loads(line)
        sizes = [int(size) for size in head["sizes"]]
    except (ValueError, KeyError, TypeError) as err:
        raise OSError("no head") from err
    body = bytearray(rest)
    while len(body) < sum(sizes):
        body += _some(connection)
    parts, at = [], 0
    for size in sizes:
        parts.append(bytes(body[at : at + size]))
        at += size
    return head, parts


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(_CHUNK)
    if not data:
        raise ConnectionResetError("the other end has closed the door")
    return data
