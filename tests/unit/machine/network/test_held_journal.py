"""A journal that is held, with a process of this machine in the place of journald."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.network.held_journal import held_journal

LISTED = "/sys/fs/cgroup/system.slice/systemd-journald.service/cgroup.procs"


class Guest:
    """Runs commands here and leaves running what they start; journald is what `listed` names.

    :param longest_s: in place of a minute.
    """

    def __init__(self, listed: Path, longest_s: float = 60) -> None:
        self.is_gone = False
        self.said: list[str] = []
        self._listed = listed
        self._longest_s = longest_s

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        if self.is_gone:
            raise TransportError("the machine ended", remedy="")
        here = command.replace(LISTED, str(self._listed)).replace("-t 60", f"-t {self._longest_s}")
        limit_s = deadline.remaining_s
        done = subprocess.run(
            ["bash", "-c", here], check=False, input=stdin, capture_output=True, timeout=limit_s
        )
        self.said.append(done.stdout.decode())
        return CommandResult(
            command=command,
            exit_status=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.0,
        )

    def close(self) -> None: ...


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / "procs").write_text(f"{process.pid}\n")
        yield process.pid
        process.kill()


@pytest.fixture
def guest(tmp_path: Path, journald: int) -> Guest:
    return Guest(tmp_path / "procs")


def is_held(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def wait_for(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_journald_rests_inside_and_nothing_stays_of_that(guest: Guest, journald: int) -> None:
    with held_journal(guest, deadline=Deadline.after(30)):
        wait_for(lambda: is_held(journald))
        named, timer = guest.said[0].split()
        assert int(named) == journald
        assert Path(f"/proc/{timer}").exists()
    wait_for(lambda: not is_held(journald))
    wait_for(lambda: not Path(f"/proc/{timer}").exists())


def test_ctrl_c_inside_lets_it_go_on(guest: Guest, journald: int) -> None:
    def interrupted() -> None:
        with held_journal(guest, deadline=Deadline.after(30)):
            wait_for(lambda: is_held(journald))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    wait_for(lambda: not is_held(journald))


def test_it_goes_on_by_itself_where_nobody_comes_back(tmp_path: Path, journald: int) -> None:
    guest = Guest(tmp_path / "procs", longest_s=1.5)
    with held_journal(guest, deadline=Deadline.after(30)):
        wait_for(lambda: is_held(journald))
        guest.is_gone = True
    wait_for(lambda: not is_held(journald))


def test_a_guest_without_journald_is_left_alone(tmp_path: Path) -> None:
    guest = Guest(tmp_path / "absent")
    with held_journal(guest, deadline=Deadline.after(30)):
        assert len(guest.said) == 1
    assert guest.said == [""]
