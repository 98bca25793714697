"""What systemd-nspawn passes on of a boot, sent here by sd_notify's protocol."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.container.boot_notice import BootNotice


def _send(path: Path, *messages: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for message in messages:
            sender.sendto(message.encode(), str(path))


def _comes(notice: BootNotice) -> bool:
    return (
        poll(lambda: notice.has_come() or None, deadline=Deadline.after(20), interval_s=0.01)
        or False
    )


def test_the_end_of_a_boot_ends_the_wait(tmp_path: Path) -> None:
    notice = BootNotice(tmp_path / "s")
    news = "STATUS=Container running: Startup finished\nREADY=1\n"
    later = threading.Timer(0.1, _send, (notice.path, "STATUS=READY=1", news))
    later.start()
    begun_s = time.monotonic()
    assert _comes(notice)
    assert time.monotonic() - begun_s < 10.0
    notice.close()
    notice.close()
    assert not notice.path.exists()


def test_who_tells_much_is_never_held_up(tmp_path: Path) -> None:
    notice = BootNotice(tmp_path / "s")
    told = threading.Thread(target=_send, args=(notice.path, *["STATUS=x"] * 2000), daemon=True)
    told.start()
    told.join(timeout=20.0)
    assert not told.is_alive()
    notice.close()
    with pytest.raises(OSError, match=r"refused|No such file"):
        _send(notice.path, "STATUS=x")


def test_other_news_is_not_the_end(tmp_path: Path) -> None:
    notice = BootNotice(tmp_path / "s")
    _send(notice.path, "STATUS=Container running.\nX_NSPAWN_LEADER_PID=3", "", "READY=10")
    time.sleep(0.05)
    assert not notice.has_come()
    notice.close()


def test_what_an_earlier_boot_left_goes(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    again = BootNotice(tmp_path / "s")
    _send(again.path, "READY=1")
    assert _comes(again)
    again.close()


def test_one_that_nothing_is_told_ends_at_once(tmp_path: Path) -> None:
    notice = BootNotice(tmp_path / "s")
    begun_s = time.monotonic()
    notice.close()
    assert time.monotonic() - begun_s < 0.5
    assert not [t for t in threading.enumerate() if t.name == "nixos-notice"]


def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="cannot be made") as caught:
        BootNotice(tmp_path / "none/s")
    assert "TMPDIR" in caught.value.remedy
