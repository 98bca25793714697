"""A user of a real container as after a login: session, environment, service manager, ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from pytest_nixos.errors import CommandTimeout, MachineError
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.container.backend import ContainerBackend
from pytest_nixos.machine.user_session import UserSession
from pytest_nixos.testinfra import make_host
from tests.machine.test_container_boot import TOPLEVEL, spec

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not TOPLEVEL or not shutil.which("systemd-nspawn"),
    reason="needs root, systemd-nspawn and PYTEST_NIXOS_CONTAINER_TOPLEVEL",
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with run_directory() as directory, Machine(spec(directory.path), ContainerBackend()) as machine:
        machine.start()
        assert machine.run("useradd -m alice").succeeded
        yield machine


@pytest.fixture(scope="module")
def alice(machine: Machine) -> UserSession:
    return machine.as_user("alice")


def test_commands_run_as_the_user_in_a_session_of_theirs(alice: UserSession) -> None:
    seen = alice.run('id -un; pwd; echo "$HOME $USER $XDG_RUNTIME_DIR"; type -P systemctl')
    uid = alice.run("id -u").stdout_text.strip()
    assert seen.stdout_text.splitlines() == [
        "alice",
        "/home/alice",
        f"/home/alice alice /run/user/{uid}",
        "/run/current-system/sw/bin/systemctl",
    ]
    assert alice.run("systemctl --user show --property=Version").stdout_text.startswith("Version=")


def test_status_streams_and_stdin_are_those_of_the_command(alice: UserSession) -> None:
    done = alice.run("cat; echo err >&2; exit 7", stdin=b"\0in\n")
    assert (done.exit_status, done.stdout, done.stderr) == (7, b"\0in\n", b"err\n")
    assert alice.run("kill -9 $$").exit_status == 137
    assert alice.run('a=1; echo "$a ${a} \\$a %n"').stdout == b"1 1 $a %n\n"


def test_what_is_roots_is_not_the_users(alice: UserSession) -> None:
    assert not alice.run("cat /etc/shadow").succeeded
    assert not alice.run("touch /etc/mine").succeeded


def test_a_command_that_takes_too_long_is_ended_in_the_guest(
    machine: Machine, alice: UserSession
) -> None:
    with pytest.raises(CommandTimeout, match=r"^exec -a pytest-nixos-slow sleep 1000: of alice"):
        alice.run("exec -a pytest-nixos-slow sleep 1000", timeout_s=2.0)
    gone = "for n in {1..200}; do pgrep -f '^pytest-nixos-[s]low' || exit 0; read -t 0.1; done <> <(:); exit 1"
    assert machine.run(gone).succeeded


def test_testinfra_asks_as_the_user(alice: UserSession) -> None:
    host = make_host(alice)
    assert host.backend.hostname == "alice@web"
    assert host.user().name == "alice"
    assert not host.file("/root/.ssh").exists
    assert host.file("/home/alice").user == "alice"


@pytest.mark.parametrize("profile", ["exit 0", "exec true", "exec sh -c 'exit 3'"])
def test_a_command_that_the_users_own_files_keep_from_running_is_an_error(
    machine: Machine, alice: UserSession, profile: str
) -> None:
    machine.files.write("/home/alice/.bash_profile", f"{profile}\n".encode())
    try:
        with pytest.raises(MachineError, match="false: was not run as alice"):
            alice.run("echo out; false")
    finally:
        machine.run("rm /home/alice/.bash_profile")


def test_what_start_files_print_or_read_is_not_the_commands(
    machine: Machine, alice: UserSession
) -> None:
    machine.files.write("/home/alice/.bash_profile", b"echo hello; echo there >&2; cat\n")
    try:
        done = alice.run("cat; echo err >&2", stdin=b"in\n")
    finally:
        machine.run("rm /home/alice/.bash_profile")
    assert (done.stdout, done.stderr, done.command) == (b"in\n", b"err\n", "cat; echo err >&2")


def test_an_account_that_has_expired_is_told(machine: Machine, alice: UserSession) -> None:
    machine.run("chage -E 1 alice")
    try:
        with pytest.raises(MachineError, match="true: was not run as alice"):
            alice.run("true")
    finally:
        machine.run("chage -E -1 alice")


def test_a_user_that_is_not_there_is_an_error(machine: Machine) -> None:
    with pytest.raises(MachineError, match="web: has no user 'bob'"):
        machine.as_user("bob")
