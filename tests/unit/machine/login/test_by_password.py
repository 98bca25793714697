"""A login that is neither let in nor refused is unknown."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from passlib.hash import sha512_crypt

from pytest_nixos.errors import LoginRefused, MachineError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.login.by_password import LoginTerminal, _answer, _hash


def terminal(*printed: bytes | None) -> LoginTerminal:
    left = list(printed)
    guest = SimpleNamespace(exchange=lambda _typed=b"": left.pop(0) if left else b"")
    return LoginTerminal(cast("Any", guest), "alice@web", "secret")


def test_who_is_asked_for_a_code_is_not_refused() -> None:
    with pytest.raises(MachineError, match="in time: Verification code:") as raised:
        _answer(terminal(b"Verification code: "), "secret", Deadline.after(0.3))
    assert not isinstance(raised.value, LoginRefused)


@pytest.mark.parametrize("printed", [(b"Login incorrect\r\n",), (b"Account expired\r\n", None)])
def test_who_is_refused_is_told_the_words(printed: tuple[bytes | None, ...]) -> None:
    with pytest.raises(LoginRefused, match=r"Login incorrect|Account expired"):
        _answer(terminal(*printed), "secret", Deadline.after(20))


def test_an_emulated_guest_checks_the_password_at_once() -> None:
    hashed = _hash("secret").decode()
    assert sha512_crypt.verify("secret", hashed)
    assert sha512_crypt.from_string(hashed).rounds <= 10_000
