"""Commands through the NixOS test driver: a bash stands for the guest, the relay is the real one."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_nixos.errors import CommandTimeout, NoAnswerError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import run_many
from pytest_nixos.machine.driver import transport as module
from pytest_nixos.machine.driver.transport import DriverTransport
from tests.support.driver_machine import ShellMachine, in_driver


@dataclass
class Rig:
    machine: ShellMachine
    transport: DriverTransport
    spool: Path


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    spool = tmp_path / "run"
    spool.mkdir()
    machine = ShellMachine(tmp_path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "driver"))
    listener.listen()
    pytest_process = subprocess.Popen(["sleep", "600"])
    relay = threading.Thread(target=in_driver()["_serve"], args=(listener, pytest_process, machine))
    relay.start()
    transport = DriverTransport(tmp_path / "driver", name="machine", spool=str(spool))
    transport.connect()
    yield Rig(machine, transport, spool)
    transport.close()
    pytest_process.kill()
    pytest_process.wait()
    machine.end()
    relay.join(10)
    assert not relay.is_alive()
    listener.close()


def soon() -> Deadline:
    return Deadline.after(20)


def test_both_streams_come_back_byte_for_byte(rig: Rig) -> None:
    done = rig.transport.run(r"printf '\xff\0\n a'; printf '\xfe\n' >&2; exit 3", deadline=soon())
    assert (done.exit_status, done.stdout, done.stderr) == (3, b"\xff\0\n a", b"\xfe\n")
    assert list(rig.spool.iterdir()) == []


def test_a_command_is_a_script_of_its_own(rig: Rig) -> None:
    # The driver's `set -euo pipefail`, its directory and its variables are not the command's.
    text = 'false | true; echo "${nothing}$PWD $HOME $# ${PIPESTATUS[*]:-}"; false\ncat <<E\n$((1 + 1)) \'"\\\\\nE\n'
    done = rig.transport.run(text, deadline=soon())
    assert done.stdout_text == "/ /root 0 1 0\n2 '\"\\\n"
    assert done.exit_status == 0


def test_input_is_what_was_given_and_ends(rig: Rig) -> None:
    data = bytes(range(256)) * 800
    done = rig.transport.run("sha256sum; cat | wc -c", deadline=soon(), stdin=data)
    assert done.stdout_text.splitlines()[-1] == "0"
    done = rig.transport.run("cat", deadline=soon(), stdin=data)
    assert done.stdout == data
    # More than one argument holds comes in pieces, each of which one does.
    assert max(map(len, rig.machine.executed)) < 128 * 1024 - 200


def test_a_long_text_runs(rig: Rig) -> None:
    done = rig.transport.run(f": {'x' * 200_000}; echo $#; exit 4", deadline=soon())
    assert (done.exit_status, done.stdout_text) == (4, "0\n")


def test_one_that_takes_too_long_is_killed_with_all_that_it_started(rig: Rig) -> None:
    marks = rig.spool / "marks"
    text = f"echo out; echo err >&2; (sleep 3; touch {marks}) & wait"
    with pytest.raises(CommandTimeout, match="still running after 1 s") as caught:
        rig.transport.run(text, deadline=Deadline.after(1))
    assert (caught.value.stdout, caught.value.stderr) == (b"out\n", b"err\n")
    assert rig.transport.run("echo on", deadline=soon()).stdout == b"on\n"
    time.sleep(2.5)
    assert not marks.exists()


def test_what_it_leaves_in_the_background_holds_nobody_up(rig: Rig) -> None:
    started_s = time.monotonic()
    assert rig.transport.run("sleep 30 & echo $!", deadline=soon()).succeeded
    assert time.monotonic() - started_s < 10


def test_a_status_that_the_driver_uses_itself_is_the_commands(rig: Rig) -> None:
    assert rig.transport.run("exit 124", deadline=soon()).exit_status == 124


def test_one_that_kills_its_shell_is_no_result(rig: Rig) -> None:
    with pytest.raises(TransportError, match="ended the shell that ran it"):
        rig.transport.run("kill -TERM $PPID; sleep 1", deadline=soon())
    assert rig.transport.run("echo on", deadline=soon()).stdout == b"on\n"


def test_too_much_output_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_OUTPUT", 1000)
    with pytest.raises(TransportError, match="1001 bytes of output, more than the 1000"):
        rig.transport.run("head -c 1001 /dev/zero", deadline=soon())


def test_threads_take_turns(rig: Rig) -> None:
    found: list[bytes] = []

    def work(number: int) -> None:
        found.append(rig.transport.run(f"echo {number}", deadline=soon()).stdout)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [b"%d\n" % n for n in range(3)]


def test_several_go_in_one_trip(rig: Rig) -> None:
    first, second = run_many(rig.transport, ["echo 1; exit 5", "echo 2 >&2"], deadline=soon())
    assert (first.exit_status, first.stdout, second.stderr) == (5, b"1\n", b"2\n")


def test_a_machine_that_is_gone_is_told(rig: Rig) -> None:
    rig.machine.end()
    with pytest.raises(TransportError, match="the test driver: "):
        rig.transport.run("true", deadline=soon())
    assert rig.transport.broken
    with pytest.raises(TransportError, match="not reached any more"):
        rig.transport.run("true", deadline=soon())


def test_a_guest_that_hangs_is_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAY_S", 0.5)
    monkeypatch.setattr(module, "_KILL_S", 0)
    rig.machine.hang()
    with pytest.raises(NoAnswerError, match="hung"):
        rig.transport.run("true", deadline=Deadline.after(1))
    assert "since" in rig.transport.broken


def test_no_room_for_the_command_is_told(rig: Rig) -> None:
    rig.spool.rmdir()
    with pytest.raises(TransportError, match="could not be run"):
        rig.transport.run("true", deadline=soon())


def test_without_a_driver(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="no test driver at"):
        DriverTransport(tmp_path / "none", name="machine").connect()


def test_a_command_with_a_nul_is_refused(rig: Rig) -> None:
    with pytest.raises(TransportError, match="NUL"):
        rig.transport.run("a\0b", deadline=soon())
