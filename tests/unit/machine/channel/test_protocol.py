"""The host's end of the channel against a guest whose server is the attacker's own."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_nixos.errors import TransportError
from pytest_nixos.machine.channel.protocol import (
    Answer,
    find_session,
    parse_kill_reply,
    parse_reply,
)

NONCE = "0123456789abcdef" * 2
OTHER = "f" * 32


def answer(
    status: str = "0", out: str = "2", err: str = "0", flag: str = "-", body: str = "ok"
) -> bytes:
    return f"\x1eA {NONCE} 7 {status} {out} {err} {flag}\x1e{body}\x1eE 7\n".encode()


def test_an_honest_answer_is_taken() -> None:
    taken = parse_reply(bytearray(answer()), NONCE, 7)
    assert taken is not None
    assert taken[0] == Answer(exit_status=0, stdout=b"ok", stderr=b"", overflowed=False)


@pytest.mark.parametrize(
    "said",
    [
        answer().replace(NONCE.encode(), OTHER.encode()),
        answer().replace(b" 7 0", b" 8 0"),
        answer(status="9" * 5000),
        answer(status="-1"),
        answer(out="9" * 15, body=""),
        answer(out="9" * 5000, body=""),
        answer(out="1"),
        answer(flag="maybe"),
        b"\nX " + OTHER.encode() + b" 7 session\n",
        b"A" * 1000,
        b"\x1e" * 1000,
        b"\n" * 1000,
    ],
    ids=[
        *("another session", "another request", "a status without end", "a negative status"),
        *("an output of a petabyte", "a size without end", "a body that is longer", "a new flag"),
        *("a refusal of another session", "letters", "separators", "newlines"),
    ],
)
def test_a_lie_is_an_error(said: bytes) -> None:
    with pytest.raises(TransportError):
        parse_reply(bytearray(said), NONCE, 7)


def test_an_answer_that_is_replayed_is_an_error() -> None:
    with pytest.raises(TransportError, match="what no channel says"):
        parse_reply(bytearray(answer()), NONCE, 8)


def test_another_version_is_told_with_a_remedy() -> None:
    with pytest.raises(TransportError, match="speaks version") as caught:
        find_session(bytearray(f"\nS {NONCE} 99 agent\n".encode()), NONCE)
    assert "this version" in caught.value.remedy


WORDS = st.sampled_from(
    [
        b"\x1eA ",
        b"\nS ",
        b"\nX ",
        b"\nK ",
        b"\nH ",
        NONCE.encode(),
        b" 7 ",
        b"0 ",
        b"-",
        b"\x1e",
        b"\n",
    ]
)


@given(st.lists(st.one_of(WORDS, st.binary(max_size=40)), max_size=30).map(b"".join))
def test_whatever_is_said_gives_a_reply_or_a_transport_error(said: bytes) -> None:
    for parse in (
        lambda data: parse_reply(data, NONCE, 7),
        lambda data: parse_kill_reply(data, NONCE, 1, 7),
        lambda data: find_session(data, NONCE),
    ):
        data = bytearray(said)
        with contextlib.suppress(TransportError):
            parse(data)


def test_chatter_before_a_session_fills_no_memory() -> None:
    data = bytearray(b"x" * (4 << 20))
    assert find_session(data, NONCE) is None
    assert len(data) < 1 << 12
    data = bytearray(b"x" * (4 << 20))
    assert parse_kill_reply(data, NONCE, 1, 7) is None
    assert len(data) < 1 << 12
