"""What sshd has in force for a user, as ``sshd -T`` prints it."""

from __future__ import annotations

import pytest

from pytest_nixos.machine.login.sshd import InForce


def in_force(*lines: str) -> InForce:
    return InForce.parse("\n".join(lines), user="alice", uid="1000", home="/home/alice")


def test_files_of_keys_have_their_tokens_filled_in() -> None:
    found = in_force(
        "port 2222",
        "port 22",
        "authorizedkeysfile %h/.ssh/keys .ssh/more /etc/ssh/authorized_keys.d/%u /k/%U/100%%",
    )
    assert found.port == 2222
    assert found.key_files == (
        "/home/alice/.ssh/keys",
        "/home/alice/.ssh/more",
        "/etc/ssh/authorized_keys.d/alice",
        "/k/1000/100%",
    )
    assert found.reads_declared_keys


def test_no_file_of_keys() -> None:
    found = in_force("authorizedkeysfile none")
    assert found.key_files == ()
    assert not found.reads_declared_keys


@pytest.mark.parametrize(
    ("lines", "enough"),
    [
        ((), True),
        (("authenticationmethods any",), True),
        (("authenticationmethods publickey",), True),
        (("authenticationmethods publickey,keyboard-interactive:pam",), False),
        (("authenticationmethods publickey,password publickey",), True),
        (("pubkeyauthentication no",), False),
    ],
)
def test_whether_a_key_is_enough(lines: tuple[str, ...], enough: bool) -> None:
    assert in_force(*lines).key_is_enough is enough
