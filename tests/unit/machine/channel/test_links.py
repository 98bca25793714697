"""The two ends of a container's channel: who may open, replace and remove the named pipes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.base import SecretArchive
from pytest_nixos.machine.channel.links import FifoLink, make_fifos
from pytest_nixos.machine.channel.transport import PORTS
from pytest_nixos.machine.container.channel import open_links, prepare_channel


def test_a_pipe_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "elsewhere")
    (tmp_path / "0.in").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "0.out")
    with pytest.raises(OSError, match=r"0\.in"):
        FifoLink(tmp_path, "0")


def test_missing_pipes_are_told_and_nothing_stays_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    make_fifos(tmp_path, "control", owner=os.getuid())
    with pytest.raises(MachineError, match="cannot be opened"), contextlib.ExitStack() as stack:
        open_links(tmp_path, stack)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_each_end_says_what_the_other_hears(tmp_path: Path) -> None:
    make_fifos(tmp_path, "0", owner=os.getuid())
    link = FifoLink(tmp_path, "0")
    link.connect()
    with contextlib.closing(link):
        guest_in = os.open(tmp_path / "0.in", os.O_RDWR | os.O_NONBLOCK)
        guest_out = os.open(tmp_path / "0.out", os.O_RDWR | os.O_NONBLOCK)
        assert link.send(memoryview(b"ask")) == 3
        assert os.read(guest_in, 10) == b"ask"
        os.write(guest_out, b"answer")
        assert link.receive() == b"answer"
        with pytest.raises(BlockingIOError):
            link.receive()
        os.close(guest_in)
        os.close(guest_out)
    with pytest.raises(OSError, match="closed"):
        link.connect()


def test_what_the_guest_gets_is_complete(tmp_path: Path) -> None:
    toplevel = tmp_path / "toplevel"
    toplevel.mkdir()
    channel = tmp_path / "channel"
    prepare_channel(channel, toplevel)
    unit = (channel / "units/pytest-nixos-channel.service").read_text()
    assert "ExecStart=bash /run/pytest-nixos-channel/channel.bash" in unit
    for target in ("sysinit", "emergency", "rescue"):
        wanted = channel / f"units/{target}.target.wants/pytest-nixos-channel.service"
        assert wanted.resolve() == channel / "units/pytest-nixos-channel.service"
    names = {(entry / "name").read_text().strip() for entry in (channel / "ports").iterdir()}
    assert names == {f"pytest-nixos.{port}" for port in PORTS}


def test_a_channel_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be made"):
        prepare_channel(tmp_path / "no/such", tmp_path)


def test_secrets_come_with_the_channel_closed_to_others(tmp_path: Path) -> None:
    source = tmp_path / "t"
    source.write_bytes(b"archive")
    channel = tmp_path / "channel"
    secrets = SecretArchive(path=source, digest="d", may_be_saved=True)
    prepare_channel(channel, tmp_path, secrets)
    archive = channel / "secrets.tar"
    assert archive.read_bytes() == b"archive"
    assert archive.stat().st_mode & 0o777 == 0o400
