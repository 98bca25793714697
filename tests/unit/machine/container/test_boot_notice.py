"""What systemd-nspawn passes on of a boot, sent here by sd_notify's protocol."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.machine.container.boot_notice import BootNotice


def _send(path: Path, *messages: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for message in messages:
            sender.sendto(message.encode(), str(path))


def test_the_end_of_a_boot_ends_the_wait(tmp_path: Path) -> None:
    notice = BootNotice(tmp_path / "s")
    news = "STATUS=Container running: Startup finished\nREADY=1\n"
    later = threading.Timer(0.1, _send, (notice.path, "STATUS=READY=1", news))
    later.start()
    begun_s = time.monotonic()
    assert notice.wait(20.0)
    assert time.monotonic() - begun_s < 10.0
    assert not notice.path.exists()
    notice.close()


def test_other_news_is_not_the_end(tmp_path: Path) -> None:
    notice = BootNotice(tmp_path / "s")
    _send(notice.path, "STATUS=Container running.\nX_NSPAWN_LEADER_PID=3", "", "READY=10")
    assert not notice.wait(0.05)
    assert not notice.wait(0.0)
    notice.close()


def test_what_an_earlier_boot_left_goes(tmp_path: Path) -> None:
    BootNotice(tmp_path / "s")
    again = BootNotice(tmp_path / "s")
    _send(again.path, "READY=1")
    assert again.wait(5.0)


def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be made") as caught:
        BootNotice(tmp_path / "none/s")
    assert "TMPDIR" in caught.value.remedy
