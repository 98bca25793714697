"""A door between two ends of this process, whose guest is a bash of this machine."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import CommandTimeout, SettingsError, TransportError
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.door.door import CARD, SOCKET, Door
from pytest_nixos.machine.door.visitor import OpenDoor, find_door, open_doors


class Bash:
    """Runs commands here."""

    def __init__(self) -> None:
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            done = subprocess.run(
                ["bash", "-c", command],
                input=stdin,
                capture_output=True,
                check=False,
                timeout=min(deadline.remaining_s, 60),
            )
        except subprocess.TimeoutExpired as err:
            raise CommandTimeout("late: killed", remedy="wait") from err
        finally:
            with self._lock:
                self.at_once -= 1
        return CommandResult(
            command=command,
            exit_status=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.1,
        )

    def close(self) -> None:
        pass


class Seat:
    def __init__(self) -> None:
        self.bash = Bash()
        self.visits = 0
        self.door = Door("flake#we b", "vm", transport=lambda: self.bash, entered=self.enter)

    def enter(self) -> None:
        self.visits += 1

    @property
    def visitor(self) -> OpenDoor:
        return find_door(self.door.card.name)


@pytest.fixture
def seat() -> Iterator[Seat]:
    seat = Seat()
    with seat.door:
        yield seat


def test_a_command_comes_back_whole(seat: Seat) -> None:
    data = bytes(range(256)) * 5000
    done = seat.visitor.run("cat; echo no >&2; exit 3", deadline=Deadline.after(30), stdin=data)
    assert (done.exit_status, done.stdout, done.stderr) == (3, data, b"no\n")
    assert seat.visits == 1


def test_a_limit_holds_beyond_the_door(seat: Seat) -> None:
    with pytest.raises(CommandTimeout, match="late: killed"):
        seat.visitor.run("sleep 30", deadline=Deadline.after(0.3))


def test_a_command_may_have_no_limit(seat: Seat) -> None:
    assert seat.visitor.run("echo a", deadline=Deadline.after(float("inf"))).stdout == b"a\n"


def test_a_port_is_left_for_the_machines_own_tests(seat: Seat) -> None:
    visitor = seat.visitor
    threads = [
        threading.Thread(
            target=visitor.run, args=("sleep 0.3",), kwargs={"deadline": Deadline.after(30)}
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seat.bash.most_at_once == 3


def test_nobody_else_gets_to_it(seat: Seat) -> None:
    assert stat.S_IMODE(seat.door.directory.stat().st_mode) == 0o700


def test_a_door_that_closed_is_not_found_and_leaves_nothing() -> None:
    seat = Seat()
    with seat.door:
        visitor = seat.visitor
    assert not visitor.directory.exists()
    with pytest.raises(SettingsError, match="no running machine"):
        find_door(visitor.card.name)
    with pytest.raises(TransportError, match="the machine is gone"):
        visitor.run("true", deadline=Deadline.after(60))


def test_only_a_kept_machine_ends_for_a_visitor(seat: Seat) -> None:
    with pytest.raises(SettingsError, match="belongs to a run that goes on"):
        seat.visitor.end()
    assert not seat.door.is_over
    seat.door.keep(idle_limit_s=60)
    assert seat.visitor.card.kept
    seat.visitor.end()
    # The visitor is told first, so that the machine's end cannot cut the answer off.
    assert poll(lambda: seat.door.is_over or None, deadline=Deadline.after(60))


def test_a_kept_machine_is_over_when_nobody_comes_for_long(seat: Seat) -> None:
    seat.door.keep(idle_limit_s=0.2)
    time.sleep(0.3)
    assert seat.door.is_over
    seat.visitor.run("true", deadline=Deadline.after(60))
    assert not seat.door.is_over


def test_who_is_there_keeps_it(seat: Seat) -> None:
    seat.door.keep(idle_limit_s=0.2)
    stays = threading.Thread(
        target=seat.visitor.run, args=("sleep 0.8",), kwargs={"deadline": Deadline.after(30)}
    )
    stays.start()
    time.sleep(0.5)
    assert not seat.door.is_over
    stays.join()


@pytest.mark.parametrize(
    "said", [b"", b"\n", b"[]\n", b"{}\n", b'{"sizes": [5]}\nabc', b'{"sizes": []}\n', b"x" * 10]
)
def test_nonsense_at_the_door_harms_nobody(seat: Seat, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(seat.door.directory / SOCKET))
        stranger.sendall(said)
    assert seat.visitor.run("echo a", deadline=Deadline.after(30)).stdout == b"a\n"


def test_a_card_that_cannot_be_read_is_passed_over(seat: Seat) -> None:
    (seat.door.directory / CARD).write_text(json.dumps({"name": "other"}))
    assert seat.door.card.name not in {door.card.name for door in open_doors()}


def test_a_name_is_fit_for_a_command_line(seat: Seat) -> None:
    assert seat.door.card.name.startswith("we-b-")
    assert Path(seat.door.card.name).name == seat.door.card.name
