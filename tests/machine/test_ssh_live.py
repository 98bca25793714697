"""The ssh backend against a real sshd on loopback, in a mount namespace of its own.

``PYTEST_NIXOS_SSHD`` names the program; by default ``sshd`` of PATH or /usr/sbin.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import BootError, CommandTimeout, MachineError, TransportError
from pytest_nixos.local.run_directory import run_directory
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.base import MachineSpec
from pytest_nixos.machine.capabilities import PortState
from pytest_nixos.machine.ssh.backend import SshBackend, SshRunning
from tests.support.processes import processes
from tests.unit.host_documents import bare_host

SSHD = os.environ.get("PYTEST_NIXOS_SSHD") or shutil.which("sshd", path="/usr/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or SSHD is None
    or not all(map(shutil.which, ("ssh", "ssh-keygen", "unshare"))),
    reason="needs root, the OpenSSH client and sshd (PYTEST_NIXOS_SSHD)",
)

# sshd wants a user of its own and /run/sshd; neither may appear on this machine.
SERVE = """
set -eu
cp /etc/passwd "$1/passwd"
grep -q '^sshd:' "$1/passwd" || echo 'sshd:x:64321:65534::/run/sshd:/usr/sbin/nologin' >>"$1/passwd"
mount --bind "$1/passwd" /etc/passwd
mkdir -p /run/sshd && mount -t tmpfs -o mode=0755 none /run/sshd
exec "$2" -D -e -f "$1/sshd_config"
"""


class Rig:
    """An sshd and a client configuration that knows its key."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        for name in ("host", "user"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(keygen, check=True)
        public = (directory / "host.pub").read_text()
        (directory / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        (directory / "keys").write_text((directory / "user.pub").read_text())
        (directory / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nUsePAM no\n"
            f"AuthorizedKeysFile {directory}/keys\nStrictModes no\nPermitRootLogin yes\n"
            f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
            f"Banner none\nPrintMotd no\n"
        )

    def client_config(self, **changes: str) -> Path:
        settings = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "User": "root",
            "IdentityFile": str(self.directory / "user"),
            "IdentityAgent": "none",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.directory / "known_hosts"),
            "GlobalKnownHostsFile": "/dev/null",
        } | changes
        path = self.directory / "ssh_config"
        path.write_text("Host live\n" + "".join(f"  {k} {v}\n" for k, v in settings.items()))
        return path

    def start(self, run_dir: Path, *, address: str = "live", **changes: str) -> SshRunning:
        spec = MachineSpec(
            host=bare_host("live"),
            system=Path("/nonexistent"),
            run_dir=run_dir,
            boot_timeout_s=20,
        )
        backend = SshBackend(address, config=self.client_config(**changes))
        return backend.start(spec, deadline=Deadline.after(20))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = Rig(tmp_path_factory.mktemp("sshd"))
    argv = ["unshare", "--mount", "/bin/sh", "-c", SERVE, "serve", str(made.directory), str(SSHD)]
    log = (made.directory / "log").open("wb")
    with subprocess.Popen(argv, stderr=log) as server:
        try:
            deadline = Deadline.after(60)
            while not deadline.expired and server.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", made.port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            assert server.poll() is None, (made.directory / "log").read_text()
            yield made
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def running(rig: Rig) -> Iterator[SshRunning]:
    with run_directory() as directory:
        connected = rig.start(directory.path)
        yield connected
        connected.stop()


def test_status_and_both_streams_arrive_apart(running: SshRunning) -> None:
    result = running.transport.run("echo out; echo err >&2; exit 7", deadline=Deadline.after(20))
    assert (result.exit_status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


def test_a_command_that_exits_255_is_no_broken_connection(running: SshRunning) -> None:
    assert running.transport.run("exit 255", deadline=Deadline.after(20)).exit_status == 255


def test_a_death_by_signal_is_128_and_its_number(running: SshRunning) -> None:
    assert running.transport.run("kill -9 $$", deadline=Deadline.after(20)).exit_status == 137


@pytest.mark.parametrize(
    "command",
    [
        """printf '%s' 'single' "double" \\$dollar '`tick`' !bang""",
        "printf '%s\\n' one \\\n two # comment",
        "printf 'no newline at the end'",
        "cat <<'END'\nhere $text\nEND\n",
        "printf '%s' \"ä ünïcode\"",
        "echo *",
    ],
)
def test_commands_mean_what_they_mean_to_bash(running: SshRunning, command: str) -> None:
    expected = subprocess.run(["bash", "-c", command], capture_output=True, cwd="/", check=False)
    result = running.transport.run(command, deadline=Deadline.after(20))
    assert (result.stdout, result.stderr) == (expected.stdout, expected.stderr)


def test_bytes_pass_unchanged_in_and_out(running: SshRunning) -> None:
    data = os.urandom(3_000_000) + bytes(range(256))
    result = running.transport.run("cat", deadline=Deadline.after(60), stdin=data)
    assert result.stdout == data


def test_a_long_command_arrives_whole(running: SshRunning) -> None:
    result = running.transport.run(f"x={'a' * 300_000}; echo ${{#x}}", deadline=Deadline.after(20))
    assert result.stdout == b"300000\n"


def test_a_background_process_does_not_hold_the_command(running: SshRunning) -> None:
    started_s = time.monotonic()
    result = running.transport.run("sleep 33 & echo $!", deadline=Deadline.after(20))
    assert time.monotonic() - started_s < 5
    pid = int(result.stdout)
    assert Path(f"/proc/{pid}").exists()
    os.kill(pid, 9)


def test_a_command_that_takes_too_long_is_killed_on_the_host(running: SshRunning) -> None:
    with pytest.raises(CommandTimeout) as caught:
        running.transport.run("echo $$; sleep 44; echo no", deadline=Deadline.after(1))
    assert "killed" in caught.value.message
    pid = int(caught.value.stdout)
    assert not Path(f"/proc/{pid}").exists()
    assert running.transport.run("echo on", deadline=Deadline.after(20)).stdout == b"on\n"


def test_many_threads_share_one_connection(running: SshRunning) -> None:
    answers: dict[int, bytes] = {}

    def work(number: int) -> None:
        result = running.transport.run(f"sleep 0.2; echo {number}", deadline=Deadline.after(30))
        answers[number] = result.stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: b"%d\n" % number for number in range(20)}


def test_the_environment_is_the_hosts_own(running: SshRunning) -> None:
    text = running.transport.run("env; pwd", deadline=Deadline.after(20)).stdout_text
    assert "HOME=/root\n" in text
    assert "TERM=dumb\n" in text
    assert text.endswith("/\n")
    assert "SSH_" not in text


def test_ports_are_tried_at_the_address_of_ssh_config(running: SshRunning, rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    found = running.probe_tcp([rig.port, free], deadline=Deadline.after(60))
    assert found == {rig.port: PortState.OPEN, free: PortState.CLOSED}


def test_ports_behind_a_jump_host_are_not_judged(rig: Rig) -> None:
    with run_directory() as directory:
        jump = f"exec 3<>/dev/tcp/127.0.0.1/{rig.port}; cat <&3 & exec cat >&3"
        connected = rig.start(directory.path, ProxyCommand=f"bash -c '{jump}'")
        try:
            with pytest.raises(TransportError, match="proxycommand"):
                connected.probe_tcp([22], deadline=Deadline.after(60))
        finally:
            connected.stop()


def test_stopping_leaves_no_process_and_no_socket(rig: Rig) -> None:
    with run_directory() as directory:
        connected = rig.start(directory.path)
        socket_path = directory.path / "ssh"
        assert socket_path.is_socket()
        assert connected.is_alive()
        connected.stop()
        connected.stop()
        assert not socket_path.exists()
        assert not connected.is_alive()
        assert not [p for p in processes() if str(socket_path) in p.line]
        with pytest.raises(TransportError, match="closed"):
            connected.transport.run("true", deadline=Deadline.after(60))


def test_a_connection_that_breaks_is_told(rig: Rig) -> None:
    with run_directory() as directory:
        connected = rig.start(directory.path)
        try:
            os.kill(connected.pid, 9)
            with pytest.raises(TransportError, match="connection"):
                connected.transport.run("true", deadline=Deadline.after(60))
            assert not connected.is_alive()
        finally:
            connected.stop()


def test_an_unknown_host_key_is_refused_with_the_remedy(rig: Rig) -> None:
    with run_directory() as directory, pytest.raises(BootError) as caught:
        rig.start(directory.path, UserKnownHostsFile="/dev/null")
    assert "known_hosts" in caught.value.remedy
    assert any("Host key verification failed" in line for line in caught.value.console_tail)


def test_a_refused_key_is_told_with_the_remedy(rig: Rig, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    with run_directory() as directory, pytest.raises(BootError) as caught:
        rig.start(directory.path, IdentityFile=str(other))
    assert "without a password" in caught.value.remedy


def test_nobody_listening_is_told(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with (
        run_directory() as directory,
        pytest.raises(BootError, match="could not connect") as caught,
    ):
        rig.start(directory.path, Port=str(free))
    assert "sshd" in caught.value.remedy


def test_an_address_that_ssh_would_take_for_an_option_is_refused(rig: Rig) -> None:
    with run_directory() as directory, pytest.raises(MachineError, match="expected"):
        rig.start(directory.path, address="-oProxyCommand=touch /tmp/x")
