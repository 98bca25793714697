"""Commands through namespaces, in a container that is only namespaces: this machine's own file system."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import CommandTimeout, TransportError
from pytest_nixos.local.namespace import Leader, in_network_of
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.command import CommandResult
from pytest_nixos.machine.container.transport import NamespaceTransport

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter"))),
    reason="needs root and util-linux",
)

SPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child")


def unified() -> Path | None:
    for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (path / "cgroup.procs").exists() and (path / "cgroup.controllers").exists():
            return path
    return None


def space(thread: int, kind: str) -> str:
    return str(Path(f"/proc/{thread}/ns/{kind}").readlink())


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Container:
    """Namespaces with a shell as process 1."""

    def __init__(self, cgroup: Path | None) -> None:
        self.cgroup = cgroup
        # bash reaps what it inherits, as process 1 must.
        init = ("bash", "-c", "while :; do sleep 1000; done")
        self.process = subprocess.Popen(["unshare", *SPACES, "--mount-proc", *init])
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pid = poll(lambda: children.read_text().split() or None, deadline=Deadline.after(5))
        assert pid is not None
        self.leader = Leader(int(pid[0]))
        if cgroup is not None:
            cgroup.mkdir()
            (cgroup / "cgroup.procs").write_text(pid[0])
        nsenter = shutil.which("nsenter") or ""
        self.transport = NamespaceTransport(self.leader, name="web", nsenter=nsenter, cgroup=cgroup)

    def run(self, command: str, *, limit_s: float = 20, stdin: bytes = b"") -> CommandResult:
        return self.transport.run(command, deadline=Deadline.after(limit_s), stdin=stdin)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.leader.wait_ended(5)
        self.leader.close()
        if self.cgroup is not None:
            for directory, _, _ in os.walk(self.cgroup, topdown=False):
                _eventually(Path(directory).rmdir)


@pytest.fixture(params=["own cgroup", "no cgroup"], scope="module")
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    root = unified()
    if request.param == "own cgroup" and root is None:
        pytest.skip("no unified cgroup hierarchy is mounted here")
    own = root / f"pytest-nixos-test-{os.getpid()}" if root is not None else None
    made = Container(own if request.param == "own cgroup" else None)
    yield made
    made.close()


def test_status_and_both_streams_arrive_apart(container: Container) -> None:
    result = container.run("echo out; echo err >&2; exit 7")
    assert (result.exit_status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


def test_a_death_by_signal_is_128_and_its_number(container: Container) -> None:
    assert container.run("kill -TERM $$").exit_status == 143


def test_the_command_is_in_the_containers_namespaces(container: Container) -> None:
    kinds = "mnt uts ipc net pid cgroup"
    text = container.run(f"cd /proc/self/ns; for k in {kinds}; do readlink $k; done").stdout_text
    expected = [space(container.leader.pid, kind) for kind in kinds.split()]
    assert text.splitlines() == expected
    own = [space(os.getpid(), kind) for kind in kinds.split()]
    assert not set(own) & set(expected)


def test_the_command_counts_as_the_containers_own(container: Container) -> None:
    if container.cgroup is None:
        pytest.skip("it has none")
    last = container.run("cat /proc/self/cgroup").stdout_text.splitlines()[-1]
    assert last.startswith("0::")
    assert f"/{container.cgroup.name}/pytest-nixos/" in last


def test_nothing_of_this_machines_environment_gets_in(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DEVELOPER", "x")
    text = container.run("env; pwd; umask; tty").stdout_text
    assert "SECRET" not in text
    assert "HOME=/root\n" in text
    assert text.endswith("/\n0022\nnot a tty\n")


def test_bytes_pass_unchanged_in_and_out(container: Container) -> None:
    data = os.urandom(3_000_000) + bytes(range(256))
    assert container.run("cat", stdin=data).stdout == data


def test_input_that_nobody_reads_is_no_error(container: Container) -> None:
    assert container.run("exec 0<&-; echo done", stdin=bytes(5_000_000)).stdout == b"done\n"


def test_a_hundred_megabytes_arrive(container: Container) -> None:
    result = container.run("head -c 104857600 /dev/zero; echo end >&2", limit_s=60)
    assert len(result.stdout) == 104857600
    assert result.stderr == b"end\n"


def test_a_long_command_arrives_whole(container: Container) -> None:
    assert container.run(f"x={'a' * 300_000}; echo ${{#x}}").stdout == b"300000\n"


@pytest.mark.parametrize("command", ["echo $0 $#", "if", "printf '%s' \"a'b\" '$x' \\!", "echo *"])
def test_commands_mean_what_they_mean_to_bash(container: Container, command: str) -> None:
    expected = subprocess.run(["bash", "-c", command], capture_output=True, cwd="/", check=False)
    result = container.run(command)
    assert result.exit_status == expected.returncode
    assert result.stdout.replace(b"/bin/bash", b"bash") == expected.stdout


def test_a_command_that_takes_too_long_is_killed_with_all_it_started(container: Container) -> None:
    command = (
        "echo $BASHPID; (trap '' TERM; while :; do sleep 0.2; done) & echo $!; printf part; wait"
    )
    with pytest.raises(CommandTimeout) as caught:
        container.run(command, limit_s=0.5)
    *pids, part = caught.value.stdout.split()
    assert part == b"part"
    alive = container.run(f"kill -0 {b' '.join(pids).decode()}")
    assert alive.stderr.count(b"No such process") == len(pids) == 2


def test_even_what_left_its_session_is_killed(container: Container) -> None:
    if container.cgroup is None:
        pytest.skip("without a cgroup it cannot be found")
    with pytest.raises(CommandTimeout) as caught:
        container.run("setsid --fork bash -c 'echo $$; exec sleep 555'; sleep 555", limit_s=0.5)
    pid = caught.value.stdout.decode().strip()
    assert container.run(f"kill -0 {pid}").exit_status != 0


def test_a_command_that_floods_its_output_can_be_killed(container: Container) -> None:
    with pytest.raises(CommandTimeout) as caught:
        container.run("yes", limit_s=0.3)
    assert caught.value.stdout.startswith(b"y\ny\n")


def test_a_background_process_lives_on_and_holds_nobody(container: Container) -> None:
    started_s = time.monotonic()
    pid = container.run("sleep 333 & echo $!").stdout_text.strip()
    assert time.monotonic() - started_s < 3
    assert container.run(f"kill -0 {pid} && kill {pid}").exit_status == 0


def test_many_threads_at_once(container: Container) -> None:
    answers: dict[int, bytes] = {}

    def work(number: int) -> None:
        for _ in range(5):
            answers[number] = container.run(f"cat; echo {number}", stdin=b"x").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: b"x%d\n" % number for number in range(12)}


def test_no_descriptor_and_no_child_is_left(container: Container) -> None:
    container.run("true")
    before = open_descriptors()
    for _ in range(5):
        container.run("true", stdin=b"x")
        with pytest.raises(CommandTimeout):
            container.run("sleep 5", limit_s=0.05)
    assert open_descriptors() == before
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert children == [str(container.process.pid)]


def test_a_nul_byte_is_refused(container: Container) -> None:
    with pytest.raises(TransportError, match="NUL"):
        container.run("echo \0")


def test_sockets_are_made_in_the_containers_network(container: Container) -> None:
    inside = container.run("readlink /proc/self/ns/net").stdout_text.strip()

    def look() -> str:
        return space(threading.get_native_id(), "net")

    assert in_network_of(container.leader.pid, look) == inside
    assert look() != inside


def test_a_container_that_ended_is_told() -> None:
    made = Container(None)
    try:
        made.run("true")
        os.kill(made.leader.pid, signal.SIGKILL)
        with pytest.raises(TransportError, match="has ended"):
            made.run("sleep 5")
        with pytest.raises(TransportError):
            in_network_of(made.leader.pid, lambda: None)
    finally:
        made.close()


def test_a_closed_transport_is_told() -> None:
    made = Container(None)
    try:
        made.transport.close()
        with pytest.raises(TransportError, match="closed"):
            made.run("true")
    finally:
        made.close()


def _eventually(action: Callable[[], None]) -> None:
    def attempt() -> bool | None:
        try:
            action()
        except OSError:
            return None
        return True

    assert poll(attempt, deadline=Deadline.after(5)) is not None
