"""What ssh's own words say of a login; ssh is a script here."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from pytest_nixos.errors import LoginRefused, MachineError
from pytest_nixos.machine.capabilities import Way
from pytest_nixos.machine.login.ssh_login import SshUser
from pytest_nixos.machine.login.sshd import InForce

SSH = """#!/bin/sh
while [ "$1" != -- ]; do [ "$1" = -E ] && log=$2; shift; done
printf '%s\\n' "{said}" >"$log"
echo "to $2: $3"
exit {status}
"""


def visitor(tmp_path: Path, said: str, status: int) -> SshUser:
    ssh = tmp_path / "ssh"
    ssh.write_text(SSH.format(said=said, status=status))
    ssh.chmod(0o755)
    return SshUser(
        name="alice@web",
        user="alice",
        way=Way(prefix=("env",), host="192.0.2.1", port=22),
        key=tmp_path / "key",
        ssh=str(ssh),
        in_force=InForce.parse("", user="alice", uid="1", home="/"),
    )


ENTERED = "Authenticated to 192.0.2.1 ([192.0.2.1]:22) using publickey."


@pytest.mark.parametrize("status", [0, 7, 255])
def test_an_exit_status_is_the_commands_own_once_the_user_is_in(
    tmp_path: Path, status: int
) -> None:
    done = visitor(tmp_path, ENTERED, status).run("id")
    assert (done.exit_status, done.stdout_text) == (status, "to 192.0.2.1: id\n")


@pytest.mark.parametrize(
    "said",
    [
        "alice@192.0.2.1: Permission denied (publickey).",
        f"{ENTERED}\nConnection to 192.0.2.1 closed by remote host.",
    ],
)
def test_a_refusal_is_told_as_one(tmp_path: Path, said: str) -> None:
    with pytest.raises(LoginRefused, match="alice@web"):
        visitor(tmp_path, said, 255).run("id")


@pytest.mark.parametrize(
    "said",
    [
        "ssh: connect to host 192.0.2.1 port 22: Connection refused",
        "Unable to negotiate with 192.0.2.1 port 22: no matching key exchange method found.",
        "kex_exchange_identification: Connection closed by remote host",
        "",
    ],
)
def test_what_says_nothing_of_the_login_is_no_refusal(
    tmp_path: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_nixos.machine.login.ssh_login._UNGREETED_S", 0.1)
    with pytest.raises(MachineError, match="no login was tried") as caught:
        visitor(tmp_path, said, 255).run("id")
    assert not isinstance(caught.value, LoginRefused)


def test_an_sshd_that_makes_its_host_keys_first_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_nixos.machine.login.ssh_login._UNGREETED_PAUSE_S", 0.05)
    user = visitor(tmp_path, ENTERED, 0)
    text = Path(user.ssh).read_text()
    closed = "kex_exchange_identification: Connection closed by remote host"
    marks = tmp_path / "tries"
    first = f'echo x >> {marks}; [ $(wc -l < {marks}) -gt 2 ] || {{ echo "{closed}" > "$log"; exit 255; }}\n'
    Path(user.ssh).write_text(text.replace("printf", f"{first}printf", 1))
    assert user.run("id").succeeded
    assert marks.read_text().count("x") == 3


def test_an_sshd_that_listens_a_moment_later_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_nixos.machine.login.ssh_login._UNGREETED_S", 0.1)
    ssh = shutil.which("ssh")
    if ssh is None:
        pytest.skip("no ssh client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]

    def listen_later() -> None:
        time.sleep(1.5)
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(20)
            server.accept()[0].close()

    user = dataclasses.replace(
        visitor(tmp_path, "", 255), ssh=ssh, way=Way(prefix=("env",), host="127.0.0.1", port=port)
    )
    listener = threading.Thread(target=listen_later, daemon=True)
    listener.start()
    with pytest.raises(MachineError, match="no login was tried") as caught:
        user.run("id")
    listener.join()
    assert "refused" not in caught.value.message
