"""What sshd has in force for a user, as ``sshd -T`` prints it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_nixos.machine.login.sshd import FIND_SSHD, InForce


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


def test_an_sshd_without_host_keys_is_asked_too(tmp_path: Path) -> None:
    """As a socket-activated one before the first connection."""
    config = tmp_path / "sshd_config"
    config.write_text("Port 2222\n")
    programs = {
        "systemctl": f"echo 'ExecStart={{ path=/x/sshd ; argv[]=/x/sshd -D -f {config} ; }}'",
        "sshd": '[ "$1" = -G ] && echo "port 2222 $*" || { echo no hostkeys available >&2; exit 1; }',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", f"{FIND_SSHD}\nask alice 192.0.2.1"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        done.stdout == f"port 2222 -G -T -f {config} -C user=alice,host=localhost,addr=192.0.2.1\n"
    )
