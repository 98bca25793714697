"""A keeper in a process of its own, from its start to the last trace of its machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_nixos.errors import TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.door.visitor import OpenDoor, open_doors
from pytest_nixos.machine.spare.claim import Claimed, claim, end_spares, spares

PROGRAM = Path(__file__).with_name("a_keeper.py")
ROOT = Path(__file__).parents[4]
LIMIT_S = 60.0


class Desk:
    """Starts keepers; directories and caches are of this test alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.started: list[subprocess.Popen[bytes]] = []

    def keep(
        self, *, host: str = "f#web", key: str = "k", limit_s: float = 600.0, owner: int = 0
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), host, key, str(limit_s), str(owner)],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "XDG_CACHE_HOME": str(self.directory / "c"),
            },
        )
        self.started.append(process)
        return process

    def spare(self, **wanted: object) -> OpenDoor:
        self.keep(**wanted)  # type: ignore[arg-type]
        key = str(wanted.get("key", "k"))
        wait_for(lambda: any(door.card.waits for door in spares(key)))
        return spares(key)[0]

    def left(self) -> list[str]:
        return [path.name for path in self.directory.glob("pytest-nixos-*")]


@pytest.fixture
def desk(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.setattr(tempfile, "tempdir", None)
        desk = Desk(Path(path))
        yield desk
        for process in desk.started:
            process.kill()
            process.wait()
    monkeypatch.setattr(tempfile, "tempdir", None)


def wait_for(reached: Callable[[], object]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not reached():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def taken(key: str = "k") -> Claimed:
    claimed = claim(key, saved_at_s=7.0)
    assert claimed is not None
    return claimed


def test_one_takes_it_and_goes_on_with_it(desk: Desk) -> None:
    door = desk.spare()
    claimed = taken()
    assert claim("k", saved_at_s=7.0) is None
    assert claimed.handed.lines[-1].text == "up"
    assert (claimed.handed.paused_at_s, claimed.handed.guest.failed_units) == (5.0, ())
    descriptor, port = claimed.ports["control"]
    with socket.socket(fileno=descriptor) as connection:
        connection.sendall(b"hello")
        assert connection.recv(10) == b"hello"
    assert (port.session, port.serial) == ("s", 3)
    console = Console()
    process = claimed.process(console, lambda _prompt: "")
    process.start()
    os.write(claimed.terminal, b"you\r")
    wait_for(lambda: "heard you" in console.tail())
    assert door.card.name not in [door.card.name for door in open_doors()]
    process.stop(grace_s=5.0)
    assert process.has_ended
    assert (process.exit_status, process.end_words) == (-signal.SIGTERM, "by signal 15")
    assert claimed.run_dir.is_dir()  # the machine may be switched on again
    process.release()
    assert desk.left() == []
    assert gone(claimed.handed.pid)
    assert desk.started[0].wait(LIMIT_S) == 0


def test_of_many_one_gets_it(desk: Desk) -> None:
    desk.spare()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: claim("k", saved_at_s=7.0), range(8)))
    assert len([claimed for claimed in found if claimed]) == 1


def test_the_end_of_the_process_is_told(desk: Desk) -> None:
    desk.spare()
    claimed = taken()
    process = claimed.process(Console(), lambda _prompt: "")
    process.start()
    assert not process.wait_ended(0.2)
    os.kill(claimed.handed.pid, signal.SIGKILL)
    assert process.wait_ended(LIMIT_S)
    assert process.end_words == "by signal 9"
    process.release()
    assert desk.left() == []


def test_a_killed_keeper_takes_its_machine_along(desk: Desk) -> None:
    desk.spare()
    claimed = taken()
    process = claimed.process(Console(), lambda _prompt: "")
    process.start()
    desk.started[0].kill()
    assert process.wait_ended(LIMIT_S)
    wait_for(lambda: gone(claimed.handed.pid))
    process.release()


def test_whoever_took_it_is_gone_and_so_is_the_machine(desk: Desk) -> None:
    desk.spare()
    claimed = taken()
    claimed.keeper.close()
    os.close(claimed.terminal)
    assert desk.started[0].wait(LIMIT_S) == 0
    assert gone(claimed.handed.pid)
    assert desk.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it(desk: Desk, number: signal.Signals) -> None:
    desk.spare()
    desk.started[0].send_signal(number)
    assert desk.started[0].wait(LIMIT_S) == 0
    assert (desk.left(), spares()) == ([], ())


def test_it_ends_by_itself(desk: Desk) -> None:
    desk.keep(limit_s=0.1)
    assert desk.started[0].wait(LIMIT_S) == 0
    assert desk.left() == []


def test_it_ends_with_its_machine(desk: Desk) -> None:
    door = desk.spare()
    claimed_pid = int(
        subprocess.run(
            ["pgrep", "-P", str(desk.started[0].pid)], capture_output=True, text=True, check=True
        ).stdout
    )
    os.kill(claimed_pid, signal.SIGKILL)
    assert desk.started[0].wait(LIMIT_S) == 0
    assert not door.directory.exists()


def test_it_ends_with_its_owner(desk: Desk) -> None:
    with subprocess.Popen(["sleep", "600"]) as owner:
        desk.spare(owner=owner.pid)
        owner.kill()
    assert desk.started[0].wait(LIMIT_S) == 0
    assert desk.left() == []


def test_those_of_one_owner_are_ended(desk: Desk) -> None:
    desk.spare(owner=os.getpid())
    desk.spare(host="f#db", key="other")
    assert end_spares(owner=os.getpid())
    assert [door.card.spare for door in spares()] == ["other"]
    assert not end_spares(owner=os.getpid())


def test_of_another_snapshot_it_is_not_taken_and_ends(desk: Desk) -> None:
    desk.spare()
    assert claim("k", saved_at_s=8.0) is None
    assert desk.started[0].wait(LIMIT_S) == 0


def test_another_key_leaves_it(desk: Desk) -> None:
    desk.spare()
    assert claim("another", saved_at_s=7.0) is None
    assert taken().handed.pid


def test_of_one_host_one_waits(desk: Desk) -> None:
    first = desk.spare()
    assert desk.keep().wait(LIMIT_S) == 0
    assert [door.card.name for door in spares()] == [first.card.name]


def test_one_of_another_state_of_the_host_makes_way(desk: Desk) -> None:
    desk.spare()
    desk.spare(key="changed")
    assert desk.started[0].wait(LIMIT_S) == 0
    assert [door.card.spare for door in spares()] == ["changed"]


def test_one_that_is_taken_is_in_nobodys_way(desk: Desk) -> None:
    desk.spare()
    first = taken()
    desk.spare()
    assert taken().handed.pid != first.handed.pid


def test_of_many_hosts_three_wait(desk: Desk) -> None:
    for host in "abcd":
        desk.spare(host=f"f#{host}", key=host)
    assert desk.started[0].wait(LIMIT_S) == 0
    assert [door.card.spare for door in spares()] == ["b", "c", "d"]


def test_nobody_enters_it(desk: Desk) -> None:
    door = desk.spare()
    with pytest.raises(TransportError, match="is a spare, stopped until a run takes it"):
        door.run("true", deadline=Deadline.after(60))
    door.end()
    assert desk.started[0].wait(LIMIT_S) == 0
