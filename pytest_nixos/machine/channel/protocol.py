"""The lines of the root command channel as values; ``guest_channel.bash`` is the other end and
explains them.
"""

from __future__ import annotations

import importlib.resources
import re
import secrets

import msgspec

from pytest_nixos.errors import TransportError

__all__ = [
    "PROTOCOL_VERSION",
    "Answer",
    "Refusal",
    "Restarted",
    "find_session",
    "guest_script",
    "kill_request",
    "new_nonce",
    "parse_kill_reply",
    "parse_reply",
    "refusal_line",
    "request_header",
    "session_request",
    "wire_text",
]

PROTOCOL_VERSION = 1
# Guests are not trusted: no more than this is held for one command.
_MOST_OUTPUT = 512 << 20
_LONGEST_LINE = 256
_ANSWER = re.compile(
    rb"\x1eA (?P<nonce>[0-9a-f]{32}) (?P<serial>\d{1,15}) (?P<status>\d{1,3})"
    rb" (?P<out>\d{1,15}) (?P<err>\d{1,15}) (?P<flag>-|full|line)\x1e"
)
_REFUSAL = re.compile(
    rb"\nX (?P<nonce>[0-9a-f]{32}) (?P<serial>\d{1,15}) (?P<reason>[a-z]{1,20})\n"
)
_SESSION_AGAIN = re.compile(rb"(?:\nS [0-9a-f]{32} \d{1,5} [0-9a-f-]{1,64}\n)+")
_RESTARTED = re.compile(rb"\nH [0-9a-f-]{1,64}\n")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a command gave; `overflowed` if the guest had no room for all of its output."""

    exit_status: int
    stdout: bytes
    stderr: bytes
    overflowed: bool


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The guest did not run the command: ``session``, ``spool`` or ``broken``."""

    reason: str


class Restarted(msgspec.Struct, frozen=True):
    """The guest's server has restarted; earlier requests may be lost."""


def guest_script() -> str:
    """Return the bash program that serves the channel inside the guest."""
    return (
        importlib.resources.files("pytest_nixos.machine.channel")
        .joinpath("guest_channel.bash")
        .read_text(encoding="utf-8")
    )


def new_nonce() -> str:
    """Make a session's name that no stale byte can equal by chance."""
    return secrets.token_hex(16)


def wire_text(command: str) -> bytes:
    """Encode a command for the way to the guest.

    :raises TransportError: if it holds a NUL, which no shell command can.
    """
    text = command.encode(errors="surrogateescape")
    if b"\0" in text:
        raise TransportError(
            f"a guest command holds a NUL byte: {command[:60]!r}",
            remedy="pass binary data by stdin or write_file()",
        )
    # The guest takes long texts through $(...), which drops final newlines; they mean nothing
    # there.
    return text.rstrip(b"\n")


def session_request(nonce: str) -> bytes:
    """Build the line that begins a session; the newline before ends whatever was cut off
    earlier.
    """
    return f"\nS {nonce}\n".encode()


def request_header(nonce: str, serial: int, *, text_size: int, stdin_size: int) -> bytes:
    """Build the line before a command's text and stdin; sizes in bytes."""
    return f"R {nonce} {serial} {text_size} {stdin_size}\n".encode()


def kill_request(nonce: str, channel: int, serial: int) -> bytes:
    """Build the control line that ends the process group of a request."""
    return f"K {nonce} {channel} {serial}\n".encode()


def find_session(data: bytearray, nonce: str) -> tuple[bytes, int] | None:
    """Find the reply to :func:`session_request` among stale bytes, which are dropped.

    :return: the last stale bytes and the offset behind the reply, or ``None`` if it has not come.
    :raises TransportError: if the guest speaks another version.
    """
    begin = f"\nS {nonce} ".encode()
    start = data.find(begin)
    end = data.find(b"\n", start + 1)
    if start < 0 or end < 0:
        del data[: max(0, len(data) - _LONGEST_LINE)]
        return None
    version = bytes(data[start + len(begin) : end]).split(b" ")[0]
    if version != str(PROTOCOL_VERSION).encode():
        raise TransportError(
            f"the guest's channel speaks version {version!r}, expected {PROTOCOL_VERSION}",
            remedy="build the machine with this version of pytest-nixos",
        )
    return bytes(data[max(0, start - _LONGEST_LINE) : start + 1]), end + 1


def refusal_line(nonce: str, serial: int, reason: str) -> bytes:
    """Build the line by which the guest refuses a request."""
    return f"\nX {nonce} {serial} {reason}\n".encode()


def parse_reply(
    data: bytearray, nonce: str, serial: int
) -> tuple[Answer | Refusal | Restarted, int] | None:
    """Read what the guest says to a request.

    :param data: all bytes since the request was sent.
    :return: the reply and the offset behind it, or ``None`` if more bytes are needed.
    :raises TransportError: if the bytes cannot be a reply.
    """
    # A session that was asked for twice is answered twice.
    if again := _SESSION_AGAIN.match(data):
        del data[: again.end()]
    head = bytes(data[:_LONGEST_LINE])
    if restarted := _RESTARTED.match(head):
        return Restarted(), restarted.end()
    if refusal := _REFUSAL.match(head):
        _expect(refusal, nonce, serial)
        return Refusal(reason=refusal["reason"].decode()), refusal.end()
    answer = _ANSWER.match(head)
    if answer is None:
        if (
            head.find(b"\n", 1) >= 0
            or head[:1] not in (b"", b"\n", b"\x1e")
            or len(head) == _LONGEST_LINE
        ):
            raise _garbled(head)
        return None
    _expect(answer, nonce, serial)
    return _parse_body(data, answer, serial)


def parse_kill_reply(
    data: bytearray, nonce: str, channel: int, serial: int
) -> tuple[bool, int] | None:
    """Read whether the guest found the request to kill; see :func:`parse_reply`."""
    begin = f"\nK {nonce} {channel} {serial} ".encode()
    start = data.find(begin)
    end = data.find(b"\n", start + 1)
    if start < 0 or end < 0:
        # The reply is one line; what comes before is nobody's, however much it is.
        del data[: max(0, len(data) - _LONGEST_LINE)]
        return None
    return data[start + len(begin) : end] == b"killed", end + 1


def _parse_body(data: bytearray, answer: re.Match[bytes], serial: int) -> tuple[Answer, int] | None:
    out_size, err_size = int(answer["out"]), int(answer["err"])
    if out_size + err_size > _MOST_OUTPUT:
        raise TransportError(
            f"a guest command printed {out_size + err_size} bytes, at most {_MOST_OUTPUT} are taken",
            remedy="print less, or write to a file in the guest and look at a part of it",
        )
    out_end = answer.end() + out_size
    err_end = out_end + err_size
    trailer = f"\x1eE {serial}\n".encode()
    end = err_end + len(trailer)
    if len(data) < end:
        return None
    if data[err_end:end] != trailer:
        raise TransportError(
            "a guest command's output changed while it was sent",
            remedy="end what the command left running, or give its output a file of its own",
        )
    with memoryview(data) as view:
        stdout, stderr = bytes(view[answer.end() : out_end]), bytes(view[out_end:err_end])
    if answer["flag"] == b"line":
        stdout, stderr = stdout.replace(b"\x1e", b"\n"), stderr.replace(b"\x1e", b"\n")
    reply = Answer(
        exit_status=int(answer["status"]),
        stdout=stdout,
        stderr=stderr,
        overflowed=answer["flag"] == b"full",
    )
    return reply, end


def _expect(line: re.Match[bytes], nonce: str, serial: int) -> None:
    if line["nonce"] != nonce.encode() or int(line["serial"]) != serial:
        raise _garbled(line[0])


def _garbled(head: bytes) -> TransportError:
    return TransportError(
        f"the guest's channel said what no channel says: {head[:80]!r}",
        remedy="look whether something else in the guest writes to its virtio ports",
    )
