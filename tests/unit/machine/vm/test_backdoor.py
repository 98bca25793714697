"""The channel is started by the root shell of a NixOS test's node; a socket stands for QEMU's."""

from __future__ import annotations

import base64
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.machine.vm.backdoor import Backdoor, backdoor_argv


@pytest.fixture
def run_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="pn-"))  # a socket's path is short
    yield directory
    shutil.rmtree(directory)


def listening(run_dir: Path) -> socket.socket:
    argv = " ".join(backdoor_argv(run_dir))
    found = re.search(r"path=([^,]*),server=on,wait=off", argv)
    assert found is not None
    qemu = socket.socket(socket.AF_UNIX)
    Path(found[1]).unlink(missing_ok=True)
    qemu.bind(found[1])
    qemu.listen(1)
    qemu.settimeout(10)
    return qemu


def line(guest: socket.socket) -> bytes:
    guest.settimeout(10)
    data = b""
    while not data.endswith(b"\n"):
        data += guest.recv(1 << 16)
    return data


def test_the_shell_starts_the_script_when_it_is_there(run_dir: Path) -> None:
    with listening(run_dir) as qemu, Backdoor(run_dir, "echo 'a\nb'"):
        guest, _ = qemu.accept()
        with guest:
            guest.sendall(b"connecting to ho")
            guest.settimeout(0.5)
            with pytest.raises(TimeoutError):
                guest.recv(1)
            # As it comes: in two pieces.
            guest.sendall(b"st...\nSpawning backdoor")
            guest.sendall(b" root shell...\n")
            order = line(guest).decode()
    assert base64.b64decode(order.split()[2]).decode() == "echo 'a\nb'"
    assert "systemd-run --quiet --collect --unit=pytest-nixos-channel -p " in order


def test_each_boot_starts_it_anew(run_dir: Path) -> None:
    with Backdoor(run_dir, "true"):
        for _ in range(2):
            with listening(run_dir) as qemu:
                guest, _ = qemu.accept()
                with guest:
                    guest.sendall(b"Spawning backdoor root shell...\n")
                    first = line(guest)
                    # A reboot that QEMU does not see.
                    guest.sendall(b"Spawning backdoor root shell...\n")
                    assert line(guest) == first


def test_it_ends_though_nobody_was_there(run_dir: Path) -> None:
    with Backdoor(run_dir, "true"):
        pass
