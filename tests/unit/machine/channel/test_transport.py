"""The root command channel: the real host side against the real guest script."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_nixos.errors import CommandTimeout, MachineError, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.channel.transport import SerialChannel
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.container.channel import open_links
from tests.unit.guest_end import FakePort, guest_end, guest_end_of_pipes


@dataclass(frozen=True, slots=True)
class Guest:
    channel: SerialChannel
    ports: dict[str, FakePort]
    run_dir: Path

    def run(self, command: str, limit_s: float = 20.0, stdin: bytes = b"") -> CommandResult:
        return self.channel.run(command, deadline=Deadline.after(limit_s), stdin=stdin)

    def die(self) -> None:
        for port in self.ports.values():
            port.die()


def started(run_dir: Path) -> Iterator[Guest]:
    with guest_end(run_dir) as ports:
        channel = SerialChannel.of_qemu(run_dir)
        channel.wait_ready(Deadline.after(20), lambda: None)
        yield Guest(channel, ports, run_dir)
        channel.close()


def started_with_pipes(run_dir: Path, **variables: str) -> Iterator[Guest]:
    with guest_end_of_pipes(run_dir, **variables), contextlib.ExitStack() as stack:
        channel = SerialChannel(open_links(run_dir, stack))
        channel.wait_ready(Deadline.after(20), lambda: None)
        yield Guest(channel, {}, run_dir)
        channel.close()


@pytest.fixture(scope="module", params=["virtserialports", "named pipes"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    start = started if request.param == "virtserialports" else started_with_pipes
    with tempfile.TemporaryDirectory() as directory:
        yield from start(Path(directory))


@pytest.fixture
def own_guest() -> Iterator[Guest]:
    with tempfile.TemporaryDirectory() as directory:
        yield from started(Path(directory))


def test_status_and_both_streams_come_apart(guest: Guest) -> None:
    result = guest.run("echo out; echo err >&2; exit 3")
    assert (result.exit_status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert result.command == "echo out; echo err >&2; exit 3"


@pytest.mark.parametrize(
    ("command", "status", "stdout"),
    [
        ("", 0, b""),
        ("# nothing", 0, b""),
        ("true", 0, b""),
        ("false", 1, b""),
        ("kill -9 $$", 137, b""),
        ("set -e; false; echo no", 1, b""),
        ("trap 'echo bye' EXIT; exit 5", 5, b"bye\n"),
        ("cat <<X\na $((1+1))\nX\n\n", 0, b"a 2\n"),
        ("printf '%s|' 'a b' \"$0\" \"$#\"; pwd", 0, b"a b|bash|0|/\n"),
        ("echo a; echo b >/dev/stdout; echo c; exit 7", 7, b"a\nb\nc\n"),
        ("env printf '%s' 'a  b' c", 0, b"a  bc"),
        ("compgen -v pn_; compgen -A function; true", 0, b""),
        ("for n in {3..9}; do { : <&$n; } 2>/dev/null && echo $n; done; true", 0, b""),
        ("cat /proc/self/oom_score_adj", 0, None),
        ("x=\u00e9; echo ${#x}", 0, b"1\n"),
        ("yes | head -n 1", 0, b"y\n"),
    ],
)
def test_commands_mean_what_bash_c_makes_of_them(
    guest: Guest, command: str, status: int, stdout: bytes | None
) -> None:
    result = guest.run(command)
    assert result.exit_status == status
    assert stdout is None or result.stdout == stdout


@pytest.mark.parametrize(("command", "status"), [("if then", 2), ("no-such-program a", 127)])
def test_messages_come_from_bash_itself(guest: Guest, command: str, status: int) -> None:
    result = guest.run(command)
    assert result.exit_status == status
    assert result.stderr.startswith(b"bash: ")
    assert b"pn_" not in result.stderr.replace(b'unset "${!pn_@}"; ', b"")


@pytest.mark.parametrize("size", [1, 4095, 4096, 16_383, 16_384, 16_385, 70_000, 1_500_001])
def test_bytes_survive_both_ways(guest: Guest, size: int) -> None:
    data = random.Random(size).randbytes(size)
    result = guest.run("tee /dev/fd/3 3>&2" if size < 5000 else "cat", stdin=data)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_small_output_without_nul_survives_every_other_byte(guest: Guest) -> None:
    for data in (bytes(range(1, 256)) * 20, bytes(range(1, 30)) * 20, b"\n\n", b"\x1e\n\x1e"):
        assert guest.run("cat", stdin=data).stdout == data
        assert guest.run("cat >&2", stdin=data).stderr == data


@pytest.mark.parametrize(
    "content",
    [b"", b"a", b"a\n\n", b"x" * 16_384, b"x" * 16_383, b"a\0b", bytes(range(1, 256)), None],
)
@pytest.mark.parametrize("command", ["cat {}", "cat -- {}", "cat {} {}", "cat -A {}"])
def test_files_are_printed_as_cat_does(
    guest: Guest, tmp_path: Path, command: str, content: bytes | None
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    text = command.replace("{}", str(path))
    real = subprocess.run(["bash", "-c", text], check=False, capture_output=True)
    result = guest.run(text)
    assert (result.stdout, result.stderr) == (real.stdout, real.stderr)
    assert result.exit_status == real.returncode


@pytest.mark.parametrize(
    "path", ["/proc/self/comm", "/tmp", "/dev/null", "/proc/version", "/proc/1"]
)
def test_odd_files_are_printed_as_cat_does(guest: Guest, path: str) -> None:
    real = subprocess.run(["cat", path], check=False, capture_output=True)
    result = guest.run(f"cat {path}")
    assert (result.stdout, result.stderr) == (real.stdout, real.stderr)
    assert result.exit_status == real.returncode


def test_a_file_that_cannot_be_read_to_its_end_is_left_to_cat(guest: Guest) -> None:
    # Each process has its own memory, and none at address 0.
    path = f"/proc/{os.getpid()}/mem"
    result = guest.run(f"cat {path}")
    assert result.exit_status == 1
    assert result.stdout == b""
    assert result.stderr.splitlines() == [f"cat: {path}: Input/output error".encode()]


def test_long_command_text(guest: Guest) -> None:
    assert guest.run(f"x='{'é' * 30_000}'; echo ${{#x}}\n\n").stdout == b"30000\n"


def test_command_with_nul_is_refused_here(guest: Guest) -> None:
    with pytest.raises(TransportError, match="NUL byte"):
        guest.run("echo \0")


def test_timeout_kills_the_whole_group_and_keeps_the_channel(guest: Guest) -> None:
    with pytest.raises(CommandTimeout, match=r"still running after 0\.3 s, killed") as caught:
        guest.run("echo part; echo perr >&2; sleep 4325 & sleep 4325", 0.3)
    assert (caught.value.stdout, caught.value.stderr) == (b"part\n", b"perr\n")
    assert guest.run("pgrep -fx 'sleep 4325'").stdout == b""
    assert guest.run("echo again").stdout == b"again\n"


def test_timeout_while_stdin_is_on_its_way(guest: Guest) -> None:
    with pytest.raises(CommandTimeout):
        guest.run("cat >/dev/null", 0.05, stdin=bytes(200_000_000))
    assert guest.run("echo again").stdout == b"again\n"


def test_what_a_command_leaves_running_does_not_write_into_the_next(guest: Guest) -> None:
    first = guest.run("(while :; do echo JUNK; done) & echo $! >&2")
    pid = int(first.stderr)
    try:
        for _ in range(6):
            assert guest.run("echo clean; echo clean >&2").stdout == b"clean\n"
            assert guest.run("head -c 50000 /dev/zero").stdout == bytes(50_000)
    finally:
        guest.run(f"kill {pid}")


def test_more_threads_than_ports(guest: Guest) -> None:
    wrong: list[CommandResult] = []

    def work(number: int) -> None:
        for turn in range(6):
            result = guest.run(
                f"echo {number}.{turn}; head -c {turn * 9000} /dev/zero >&2; exit {number}"
            )
            if (result.stdout, len(result.stderr), result.exit_status) != (
                f"{number}.{turn}\n".encode(),
                turn * 9000,
                number,
            ):
                wrong.append(result)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_busy_ports_are_a_timeout_that_says_so(guest: Guest) -> None:
    threads = [threading.Thread(target=guest.run, args=("sleep 0.5",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    with pytest.raises(CommandTimeout, match="all 4 channels"):
        guest.run("true", 0.1)
    for thread in threads:
        thread.join()


def test_environment_follows_a_switch(guest: Guest) -> None:
    environment = guest.run_dir / "set-environment"
    before = environment.read_text()
    assert guest.run("echo $COLOUR $HOME $USER $TERM").stdout == b"/root root dumb\n"
    environment.with_suffix(".new").write_text(
        f"{before}export COLOUR=red TMPDIR=/x LC_ALL=C.UTF-8\n"
    )
    environment.with_suffix(".new").replace(environment)
    for _ in range(6):
        assert guest.run("echo $COLOUR $TMPDIR $LC_ALL").stdout == b"red /x C.UTF-8\n"
    environment.with_suffix(".new").write_text(before)
    environment.with_suffix(".new").replace(environment)
    assert guest.run("echo $COLOUR $TMPDIR $LC_ALL").stdout == b"\n"


def test_freed_memory_of_the_servers_shell_does_not_matter() -> None:
    """`wait -f` of bash 5.2 spun for ever in one shell of 256: where the first free byte of a freed
    record looked like a stop.
    """
    looks_like_a_stop = "glibc.malloc.tcache_count=0:glibc.malloc.perturb=127"
    with tempfile.TemporaryDirectory() as directory:
        for guest in started_with_pipes(Path(directory), GLIBC_TUNABLES=looks_like_a_stop):
            assert guest.run("exit 3", 5.0).exit_status == 3


def test_a_command_that_was_stopped_is_waited_for_until_it_ends(guest: Guest) -> None:
    goes_on = "(sleep 0.3; kill -CONT $pid) >/dev/null 2>&1 &"
    result = guest.run(f"pid=$BASHPID; {goes_on} kill -STOP $pid; echo on; exit 4")
    assert (result.exit_status, result.stdout) == (4, b"on\n")


def test_a_stopped_command_is_killed_at_its_limit(guest: Guest) -> None:
    with pytest.raises(CommandTimeout):
        guest.run("kill -STOP $BASHPID", 1.0)
    assert guest.run("echo alive").stdout == b"alive\n"


def test_server_killed_under_a_command_is_told_at_once(own_guest: Guest) -> None:
    began_s = time.monotonic()
    with pytest.raises(TransportError, match="server in it restarted"):
        own_guest.run("kill -9 $PPID; sleep 60", 60)
    assert time.monotonic() - began_s < 5
    assert own_guest.run("echo again").stdout == b"again\n"


def test_machine_that_ends_is_told_at_once(own_guest: Guest) -> None:
    end = threading.Timer(0.2, own_guest.die)
    end.start()
    with pytest.raises(TransportError, match="the machine ended"):
        own_guest.run("sleep 60", 60)
    end.join()
    with pytest.raises(TransportError):
        own_guest.run("true", 0.3)


def test_reason_of_the_end_is_the_machines_own(own_guest: Guest) -> None:
    def alive() -> None:
        raise MachineError("kernel panic", remedy="read the console")

    own_guest.channel.wait_ready(Deadline.after(60), lambda: None)
    own_guest.channel._alive = alive
    with pytest.raises(MachineError, match="kernel panic"):
        own_guest.run("sleep 60", 60)


def test_host_that_reconnects_in_mid_output_gets_no_stale_byte(own_guest: Guest) -> None:
    own_guest.channel.close()
    for _ in range(3):
        channel = SerialChannel.of_qemu(own_guest.run_dir)
        port = channel._workers[0]
        port.begin_session(Deadline.after(60))
        port.send_request(b"head -c 3000000 /dev/urandom", b"", Deadline.after(60))
        time.sleep(0.05)
        channel.close()
        port.stream.disconnect()
    channel = SerialChannel.of_qemu(own_guest.run_dir)
    channel.wait_ready(Deadline.after(60), lambda: None)
    assert channel.run("echo fresh", deadline=Deadline.after(60)).stdout == b"fresh\n"
    channel.close()


def test_closed_channel_refuses(own_guest: Guest) -> None:
    own_guest.channel.close()
    with pytest.raises(TransportError, match="closed"):
        own_guest.run("true")


def test_guest_that_never_answers(tmp_path: Path) -> None:
    FakePort(tmp_path / "channel-control.sock")
    with pytest.raises(TransportError, match=r"did not answer within 0\.2 s"):
        SerialChannel.of_qemu(tmp_path).wait_ready(Deadline.after(0.2), lambda: None)


def test_qemu_argv_is_pure() -> None:
    argv = SerialChannel.qemu_argv(Path("/run/m"))
    assert argv[:2] == ("-device", "virtio-serial-pci,id=pytest-nixos-serial")
    assert "socket,id=pytest-nixos.3,path=/run/m/channel-3.sock,server=on,wait=off" in argv
    assert (
        "virtserialport,bus=pytest-nixos-serial.0,chardev=pytest-nixos.control,name=pytest-nixos.control"
        in argv
    )


def test_another_process_goes_on_with_it(own_guest: Guest) -> None:
    own_guest.channel.connect(Deadline.after(20), lambda: None)
    own_guest.run("true")
    ports = own_guest.channel.let_go()
    with pytest.raises(TransportError, match="closed"):
        own_guest.run("true")
    session = ports["0"][1]
    assert session is not None
    channel = SerialChannel.of_handed(own_guest.run_dir, ports)
    channel.connect(Deadline.after(20), lambda: None)
    results = [channel.run(f"echo {n}", deadline=Deadline.after(20)).stdout for n in range(6)]
    assert results == [f"{n}\n".encode() for n in range(6)]
    # The session is the one that the guest knows: nothing was agreed on anew.
    assert channel.let_go()["0"][1] == session
