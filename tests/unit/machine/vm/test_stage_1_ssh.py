"""Logging in to the sshd of a stage 1, over a connection to an ssh server of asyncssh."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import cast

import asyncssh
import pytest
from msgspec.structs import replace

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.boot.news import BootNews
from pytest_nixos.machine.disks.script import TEST_KEY
from pytest_nixos.machine.network.prober import FrameProber
from pytest_nixos.machine.qemu.qmp import QmpMonitor
from pytest_nixos.machine.vm.stage_1_ssh import StageOneSsh, unlocked
from pytest_nixos.nix.config.declared import InitrdSsh, LuksDevice
from pytest_nixos.nix.config.host_facts import HostConfig
from tests.unit.standards.samples import host_config

DECLARED = InitrdSsh(port=2222, host_keys=("/etc/k",), by_systemd=False)
LUKS = {"crypt": LuksDevice(name="crypt", device="/dev/vda1")}


def host(**changes: object) -> HostConfig:
    made = host_config(own_disks=True, luks=LUKS, initrd_ssh=DECLARED)
    return replace(made, **changes)


def door(tmp_path: Path, **changes: object) -> StageOneSsh:
    made = StageOneSsh.of(host(**changes), tmp_path)
    assert made is not None
    return made


class Stage1:
    """An sshd that takes what a stage 1 was given, and asks for a passphrase if it `asks`."""

    def __init__(self, files: dict[str, str], end: socket.socket, *, asks: bool = True) -> None:
        self.commands: list[str | None] = []
        self.typed = ""
        self._files, self._end, self._asks = files, end, asks
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        self._thread.join(timeout=10)

    def _run(self) -> None:
        # A client that does not trust it hangs up.
        with contextlib.suppress(OSError, asyncssh.Error):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        connection = await asyncssh.run_server(
            self._end,
            server_host_keys=[asyncssh.import_private_key(self._files["/etc/k"])],
            authorized_client_keys=asyncssh.import_authorized_keys(
                self._files["/root/.ssh/authorized_keys"]
            ),
            process_factory=self._ask,
        )
        await connection.wait_closed()

    async def _ask(self, process: asyncssh.SSHServerProcess[str]) -> None:
        self.commands.append(process.command)
        if self._asks:
            process.stdout.write("Passphrase for /dev/vda1: ")
            self.typed = await process.stdin.readline()
        process.exit(0)


def test_the_test_key_is_typed_where_it_is_asked_for(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ssh = door(tmp_path)
    sshd = Stage1(dict(ssh.files()), theirs)
    ssh.unlock(ours, deadline=Deadline.after(20))
    sshd.wait()

    assert sshd.commands == ["cryptsetup-askpass"]
    assert sshd.typed == f"{TEST_KEY}\n"


def test_systemds_stage_1_has_its_own_command(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ssh = door(tmp_path, initrd_ssh=replace(DECLARED, by_systemd=True))
    sshd = Stage1(dict(ssh.files()), theirs)
    ssh.unlock(ours, deadline=Deadline.after(20))
    sshd.wait()

    assert sshd.commands == ["systemd-tty-ask-password-agent --query"]


def test_a_login_that_is_asked_for_nothing_is_told(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ssh = door(tmp_path)
    Stage1(dict(ssh.files()), theirs, asks=False)
    with pytest.raises(
        TransportError, match=r"ssh to stage 1: cryptsetup-askpass asks for nothing"
    ):
        ssh.unlock(ours, deadline=Deadline.after(20))


def test_another_host_key_is_not_trusted(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ssh = door(tmp_path)
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    Stage1({**ssh.files(), "/etc/k": other}, theirs)
    with pytest.raises(TransportError, match=r"ssh to stage 1: .*[Hh]ost key"):
        ssh.unlock(ours, deadline=Deadline.after(20))


def test_silence_ends_with_the_limit(tmp_path: Path) -> None:
    ours, _theirs = socket.socketpair()
    with pytest.raises(TransportError, match=r"no prompt within 0\.3 s"):
        door(tmp_path).unlock(ours, deadline=Deadline.after(0.3))


def test_stage_1_gets_keys_of_the_run_that_stay_the_same_within_it(tmp_path: Path) -> None:
    files = door(tmp_path).files()

    assert set(files) == {
        "/etc/k",
        "/root/.ssh/authorized_keys",
        "/var/empty/.ssh/authorized_keys",
    }
    assert files == door(tmp_path).files()
    assert "PRIVATE" not in files["/root/.ssh/authorized_keys"]
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_only_a_vm_with_its_hosts_luks_devices_is_unlocked_so(tmp_path: Path) -> None:
    for other in (host(own_disks=False), host(luks={}), host(initrd_ssh=None)):
        assert StageOneSsh.of(other, tmp_path) is None
    static = host(kernel_params=("quiet", "ip=dhcp", "ip=192.168.1.9::192.168.1.1:255.255.255.0"))
    made = StageOneSsh.of(static, tmp_path)

    assert made is not None
    assert made.address == IPv4Address("192.168.1.9")
    assert door(tmp_path).address is None


class Monitor:
    """Takes QEMU's orders."""

    def __init__(self) -> None:
        self.orders: list[str] = []

    def execute(self, command: str, _arguments: object = None, *, deadline: Deadline) -> None:
        self.orders.append(command)


class Caller:
    """A stranger whose calls reach a stage 1, or nobody."""

    def __init__(self, end: socket.socket | None = None) -> None:
        self.faced: list[str] = []
        self._end = end

    def face(self, guest: IPv4Interface) -> None:
        self.faced.append(str(guest))

    @contextlib.contextmanager
    def call(self, port: int, *, deadline: Deadline) -> Iterator[socket.socket]:
        if self._end is None:
            raise TransportError(f"nobody listens on port {port}", remedy="look")
        yield self._end


def tell(ssh: StageOneSsh, *callers: Caller) -> tuple[bool, list[str], list[str]]:
    """Return whether it was unlocked, what was told of it, and QEMU's orders."""
    told: list[str] = []
    monitor = Monitor()
    done = unlocked(
        ssh,
        cast("dict[str, FrameProber]", {f"user.{n}": c for n, c in enumerate(callers)}),
        cast("QmpMonitor", monitor),
        BootNews("web", lambda event: told.append(f"{event.kind.value}: {event.text}")),
        deadline=Deadline.after(20),
    )
    return done, told, monitor.orders


def test_whoever_meets_the_guest_unlocks_it_and_it_is_told(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    params = ("ip=192.168.1.9::192.168.1.1:255.255.255.0",)
    ssh = door(tmp_path, kernel_params=params)
    Stage1(dict(ssh.files()), theirs)
    caller = Caller(ours)
    done, told, orders = tell(ssh, Caller(), caller)

    assert done
    assert told == ["own disks: unlocked over the network, by ssh to port 2222 of stage 1"]
    assert caller.faced == ["192.168.1.9/24"]
    assert orders == 2 * ["chardev-add", "object-add", "object-del", "chardev-remove"]


def test_that_nobody_answers_is_told_with_the_reason(tmp_path: Path) -> None:
    why = "trouble: stage 1 is not unlocked over the network, but at the console"

    assert tell(door(tmp_path), Caller())[:2] == (False, [f"{why}: nobody listens on port 2222"])
    assert tell(door(tmp_path))[:2] == (False, [f"{why}: it has no network"])
