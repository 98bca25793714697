"""Logins of declared users on a real guest; the host is that of ``tests/machine/test_logins.py``."""

from __future__ import annotations

import pytest

from pytest_nixos import LoginRefused, Machine, MachineError

LEFT = (
    "grep -c pytest-nixos-lent /proc/self/mountinfo;"
    " ls -d /run/pytest-nixos-lent* /home/*/.ssh 2>/dev/null; ls /etc/ssh/authorized_keys.d; id -u"
)


def test_a_user_with_a_declared_key_logs_in_by_ssh(nixos_machine: Machine) -> None:
    before = nixos_machine.run("cat /etc/ssh/authorized_keys.d/alice").stdout
    with nixos_machine.ssh_login("alice") as alice:
        seen = alice.run('id -un; echo "$HOME $SSH_CONNECTION"; cat; exit 7', stdin=b"typed\n")
        assert nixos_machine.run("cat /etc/ssh/authorized_keys.d/alice").stdout != before
    assert seen.stderr_text == "", seen
    user, line, typed = seen.stdout_text.splitlines()
    assert (user, typed, seen.exit_status) == ("alice", "typed", 7)
    home, *addresses = line.split()
    assert home == "/home/alice"
    assert addresses[0] != addresses[2], "the client stands in the guest itself"
    assert nixos_machine.run("cat /etc/ssh/authorized_keys.d/alice").stdout == before


def test_whom_sshd_is_not_to_let_in_is_refused_with_the_key(nixos_machine: Machine) -> None:
    with nixos_machine.ssh_login("carol") as carol, pytest.raises(LoginRefused, match="carol@"):
        carol.run("true")


def test_nothing_that_was_lent_stays(nixos_machine: Machine) -> None:
    assert nixos_machine.run(LEFT).stdout_text.split() == ["0", "alice", "carol", "0"]


def test_a_user_who_is_not_there_is_an_error(nixos_machine: Machine) -> None:
    with (
        pytest.raises(MachineError, match="mallory: the guest has no such user"),
        nixos_machine.ssh_login("mallory"),
    ):
        pass


def test_a_user_logs_in_on_a_terminal_with_a_password_of_the_run(nixos_machine: Machine) -> None:
    before = nixos_machine.run("sha256sum /etc/shadow").stdout
    with nixos_machine.login("alice") as alice:
        assert alice.shell.endswith("/bash")
        assert alice.run("id -un; echo $HOME").split() == ["alice", "/home/alice"]
        assert nixos_machine.run("sha256sum /etc/shadow").stdout != before
        assert "pts/" in nixos_machine.run("loginctl list-sessions --no-legend; who").stdout_text
        alice.sendline("tty")
        alice.expect(rb"/dev/pts/\d+")
    assert nixos_machine.run("sha256sum /etc/shadow").stdout == before


def test_an_account_without_a_password_stays_locked(nixos_machine: Machine) -> None:
    with (
        pytest.raises(LoginRefused, match=r"bob@\w+: no login on a terminal: Login incorrect"),
        nixos_machine.login("bob"),
    ):
        pass


def test_nobody_logs_in_who_is_not_there(nixos_machine: Machine) -> None:
    with pytest.raises(MachineError, match="mallory@"), nixos_machine.login("mallory"):
        pass
