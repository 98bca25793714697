"""Machines that other processes enter: ssh by a key of the run, what ``--nixos-keep`` leaves, the
debugger's prompt, and how soon Ctrl-C is obeyed; on a real container and a real VM.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.machine.test_example_flake import EXAMPLE, OVERRIDES
from tests.support.processes import processes, processes_with

COMMAND = Path(sys.prefix) / "bin" / "pytest-nixos"
WORDS = [w for name, ref in OVERRIDES.items() for w in ("--nixos-override-input", name, ref)]
CONTAINER, VM = "container-host", "edge.lab-1"
BOTH = pytest.mark.parametrize(
    "host",
    [
        CONTAINER,
        pytest.param(
            VM,
            marks=pytest.mark.skipif(
                "PYTEST_NIXOS_AT_HAND_VM" not in os.environ, reason="PYTEST_NIXOS_AT_HAND_VM=1"
            ),
        ),
    ],
)
LIMIT_S = 600
# Of a machine whose guest is told nothing, on a machine under load.
QUICK_S = 8.0

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]

WAITS = """
import time
from pathlib import Path

def test_waits(nixos_machine):
    Path("started").touch()
    end = time.monotonic() + 600
    while not Path("go-on").exists() and time.monotonic() < end:
        time.sleep(0.1)
"""
FAILS = """
def test_fails(nixos_machine):
    nixos_machine.run("echo seen >/run/seen")
    assert nixos_machine.run("false").succeeded
"""


def environment(**more: str) -> dict[str, str]:
    """Return ours as somebody's at a desk."""
    return {name: value for name, value in os.environ.items() if name != "CI"} | more


def arguments(host: str, *more: str) -> list[str]:
    # rerunfailures listens on a port of its own.
    quiet = ("-q", "-p", "no:cacheprovider", "-p", "no:rerunfailures", "--nixos-suite", "none")
    return ["-m", "pytest", *quiet, "--nixos-flake", f"{EXAMPLE}#{host}", *WORDS, *more]


def command(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *words],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        env=environment(),
        **options,
    )


def machines(directory: Path) -> dict[str, Any]:
    """Return the machines of the run in `directory`, by name."""
    listed = json.loads(command("machines", "--json").stdout)
    owners = {process.pid for process in processes() if str(directory) in process.line}
    return {card["name"]: card for card in listed if card["owner"] in owners}


def left_of(directory: Path) -> list[str]:
    """Return what still runs of the run in `directory`, and of its machines."""
    return [p.line[:120] for p in processes_with(f"PYTEST_NIXOS_AT_HAND={directory}")]


def await_gone(directory: Path, limit_s: float = 15.0) -> list[str]:
    end_s = time.monotonic() + limit_s
    while (left := left_of(directory)) and time.monotonic() < end_s:
        time.sleep(0.1)
    return left


class Entered:
    """A machine of a run that goes on, and its ssh configuration."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.config = directory / "ssh_config"
        told = command("ssh-config", name)
        assert told.returncode == 0, told.stderr
        self.config.write_text(told.stdout)

    def ssh(self, *words: str, stdin: bytes = b"", config: Path | None = None) -> Any:
        return subprocess.run(
            ["ssh", "-F", config or self.config, *words],
            input=stdin,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )

    def line(self, word: str) -> str:
        """Return what the configuration says of `word`."""
        lines = [line.split() for line in self.config.read_text().splitlines()]
        return next(" ".join(line[1:]) for line in lines if line and line[0] == word)


@pytest.fixture(scope="module")
def entered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entered]:
    directory = tmp_path_factory.mktemp("entered")
    test = directory / "test_waits.py"
    test.write_text(WAITS)
    with (directory / "log").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, *arguments(CONTAINER, str(test))],
            cwd=directory,
            env=environment(PYTEST_NIXOS_AT_HAND=str(directory)),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        end_s = time.monotonic() + LIMIT_S
        while not (directory / "started").exists():
            assert run.poll() is None and time.monotonic() < end_s, (directory / "log").read_text()
            time.sleep(0.1)
        (name,) = machines(directory)
        yield Entered(directory, name)
    finally:
        (directory / "go-on").touch()
        try:
            status = run.wait(60)
        finally:
            run.kill()
    assert status == 0
    assert await_gone(directory) == []


def test_a_command_by_ssh_has_its_streams_and_its_status(entered: Entered) -> None:
    done = entered.ssh(entered.name, "hostname; cat; echo trouble >&2; exit 3", stdin=b"typed\n")
    assert (done.returncode, done.stdout) == (3, b"container-host\ntyped\n")
    assert done.stderr == b"trouble\n"


def test_nothing_is_lost_of_long_streams(entered: Entered) -> None:
    data = os.urandom(700_001)
    done = entered.ssh(entered.name, "tee /root/data", stdin=data)
    assert done.stdout == data
    assert entered.ssh(entered.name, "sleep 1; cat /root/data; exit 5").stdout == data


def test_files_are_copied(entered: Entered, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(os.urandom(50_000))
    for word, path in (("/tmp/copied", tmp_path / "sent"), (None, tmp_path / "back")):
        ends = (
            [str(path), f"{entered.name}:{word}"]
            if word
            else [f"{entered.name}:/tmp/copied", str(path)]
        )
        subprocess.run(["scp", "-O", "-F", entered.config, *ends], check=True, timeout=LIMIT_S)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()


def test_a_file_server_is_the_guests_own_or_its_want_is_said(
    entered: Entered, tmp_path: Path
) -> None:
    (tmp_path / "sent").write_bytes(b"by sftp")
    words = ["scp", "-F", str(entered.config), str(tmp_path / "sent"), f"{entered.name}:/tmp/sftp"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode == 0:
        assert entered.ssh(entered.name, "cat /tmp/sftp").stdout == b"by sftp"
    else:
        assert "no sftp-server" in done.stderr


def test_a_port_of_the_guest_is_forwarded(entered: Entered) -> None:
    serve = """
        cd /run/systemd/system
        printf '[Socket]\\nListenStream=127.0.0.1:8765\\nAccept=yes\\n' >one.socket
        printf '[Service]\\nStandardInput=socket\\nExecStart=%s /run/one.bash\\n' "$(type -P bash)" >one@.service
        echo 'read -r request; echo "$request is here"' >/run/one.bash
        systemctl daemon-reload && systemctl start one.socket
    """
    assert entered.ssh(entered.name, serve).returncode == 0
    done = entered.ssh("-W", "127.0.0.1:8765", entered.name, stdin=b"what\n")
    assert done.stdout == b"what is here\n"


def test_no_other_key_and_no_other_user_gets_in(entered: Entered, tmp_path: Path) -> None:
    other = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    config = tmp_path / "config"
    config.write_text(entered.config.read_text().replace(entered.line("IdentityFile"), str(other)))
    refused = entered.ssh(entered.name, "id", config=config)
    assert refused.returncode == 255
    assert b"Permission denied (publickey)" in refused.stderr
    refused = entered.ssh(f"alice@{entered.name}", "id")
    assert refused.returncode == 255
    assert b"only root" in refused.stderr
    assert refused.stdout == b""


def test_keys_and_door_are_this_users_alone_and_no_port_is_open(entered: Entered) -> None:
    key = Path(entered.line("IdentityFile"))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parents[1].stat().st_mode) == 0o700
    owner = machines(entered.directory)[entered.name]["owner"]
    sockets = {str(fd.readlink()) for fd in Path(f"/proc/{owner}/fd").iterdir()}
    listening = {
        f"socket:[{line.split()[9]}]"
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{owner}/net/{table}").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    assert sockets & listening == set()
    assert (
        entered.ssh(entered.name, "ls /root/.ssh /etc/ssh/authorized_keys.d 2>/dev/null").stdout
        == b""
    )


def test_a_server_that_ssh_ends_says_nothing(entered: Entered) -> None:
    for _ in range(4):  # by SIGHUP, a moment before or after it has ended by itself
        done = entered.ssh(entered.name, "true")
        assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_client_leaves_behind_ends_with_it(entered: Entered) -> None:
    client = subprocess.Popen(
        ["ssh", "-F", entered.config, entered.name, "echo up; exec sleep 4321"],
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    client.kill()
    client.wait()
    client.stdout.close()
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        left = entered.ssh(
            entered.name, "pgrep -fx 'sleep 4321'; ls -d /run/pytest-nixos-program.*"
        )
        if len(left.stdout.splitlines()) == 1:  # the one that asks
            return
        time.sleep(0.5)
    pytest.fail(left.stdout.decode())


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_command_ends_with_the_terminal_of_who_runs_it(
    entered: Entered, number: signal.Signals
) -> None:
    words = ["run", entered.name, "--", "echo up; exec sleep 4322"]
    client = subprocess.Popen(
        ["env", f"--default-signal={number.name[3:]}", COMMAND, *words], stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"up\n"
    client.send_signal(number)
    assert client.wait(30) == 128 + number
    client.stdout.close()
    left = entered.ssh(entered.name, "pgrep -fx 'sleep 4322'; ls -d /run/pytest-nixos-program.*")
    assert len(left.stdout.splitlines()) == 1, left.stdout  # the one that asks


def test_a_command_ends_where_nobody_reads_on(entered: Entered) -> None:
    line = f"'{COMMAND}' run {entered.name} -- yes | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, timeout=LIMIT_S, check=False, env=environment()
    )
    assert (done.stdout, done.stderr) == (b"y\n141\n", b"")


def test_what_a_command_leaves_running_goes_on(entered: Entered) -> None:
    left = entered.ssh(entered.name, "setsid -f sleep 4325")
    assert left.returncode == 0
    look = "ls -d /run/pytest-nixos-program.*; p=$(pgrep -fx 'sleep 4325') && grep 0:: /proc/$p/cgroup; kill $p"
    own, *others = entered.ssh(entered.name, look).stdout.decode().splitlines()
    assert own.startswith("/run/pytest-nixos-program.")  # the one that asks
    assert others == ["0::/pytest-nixos-channel.service"]


def test_a_shell_ends_with_its_window(entered: Entered) -> None:
    seat = pexpect.spawn(str(COMMAND), ["shell", entered.name], timeout=60, encoding="utf-8")
    seat.expect(r"root@[^\n]*# |bash-[\d.]+# ")
    seat.sendline("sleep 4323")
    seat.expect_exact("sleep 4323")
    with contextlib.suppress(pexpect.ExceptionPexpect):  # it may take a moment longer
        seat.close(force=False)
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        left = entered.ssh(
            entered.name, "pgrep -fx 'sleep 4323'; ls -d /run/pytest-nixos-terminal.*"
        )
        if not left.stdout:
            return
        time.sleep(0.5)
    pytest.fail(left.stdout.decode())


def test_a_terminal_by_ssh(entered: Entered) -> None:
    words = ["-F", str(entered.config), entered.name]
    seat = pexpect.spawn("ssh", words, timeout=60, dimensions=(31, 99), encoding="utf-8")
    seat.expect(r"root@[^\n]*# |bash-[\d.]+# ")
    seat.sendline("stty size; exit 7")
    seat.expect_exact("31 99")
    seat.expect(pexpect.EOF)
    seat.close()
    assert seat.exitstatus == 7


def test_run_and_shell_enter_by_name(entered: Entered) -> None:
    done = command("run", entered.name, "--", "cat; exit 4", input="typed")
    assert (done.returncode, done.stdout) == (4, "typed")
    seat = pexpect.spawn(str(COMMAND), ["shell", entered.name], timeout=60, encoding="utf-8")
    seat.expect(r"root@[^\n]*# |bash-[\d.]+# ")
    seat.sendline("exit 6")
    seat.expect(pexpect.EOF)
    seat.close()
    assert seat.exitstatus == 6


def test_a_machine_of_a_run_that_goes_on_is_not_ended_by_name(entered: Entered) -> None:
    done = command("machines", "--stop", entered.name)
    assert done.returncode == 4
    assert "belongs to a run that goes on" in done.stderr
    assert entered.name in machines(entered.directory)


def test_an_unknown_name_names_those_that_run(entered: Entered) -> None:
    done = command("ssh", "nobody-0000", "--", "true")
    assert done.returncode == 4
    assert "nobody-0000: no running machine" in done.stderr
    assert entered.name in done.stderr


def test_ssh_starts_a_machine_of_its_own(tmp_path: Path) -> None:
    words = ["ssh", f"{EXAMPLE}#{CONTAINER}", *WORDS, "--", "hostname; exit 3"]
    done = command(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "container-host\n"), done.stderr


def kept_run(
    directory: Path, host: str, *more: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    test = directory / "test_fails.py"
    test.write_text(FAILS)
    return subprocess.run(
        [sys.executable, *arguments(host, "--nixos-keep", "failed", *more, str(test))],
        cwd=directory,
        env=environment(PYTEST_NIXOS_AT_HAND=str(directory), **variables),
        stdout=subprocess.PIPE,  # ends only when nobody has it any more
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@BOTH
def test_a_machine_of_a_failed_test_is_left_to_be_looked_at(host: str, tmp_path: Path) -> None:
    done = kept_run(tmp_path, host)
    try:
        assert done.returncode == 1, done.stdout
        (name,) = machines(tmp_path)
        assert f"left running as {name}" in done.stdout
        assert f"pytest-nixos shell {name}" in done.stdout
        assert command("run", name, "--", "cat /run/seen").stdout == "seen\n"
        ended = command("machines", "--stop", name)
        assert (ended.returncode, ended.stdout) == (0, f"{name}: ended\n")
    finally:
        for owner in {card["owner"] for card in machines(tmp_path).values()}:
            os.kill(owner, signal.SIGTERM)
    assert await_gone(tmp_path) == []


def test_a_kept_machine_ends_with_its_holder(tmp_path: Path) -> None:
    kept_run(tmp_path, CONTAINER)
    (card,) = machines(tmp_path).values()
    os.kill(card["owner"], signal.SIGTERM)
    assert await_gone(tmp_path) == []
    assert card["name"] not in command("machines").stdout


def test_a_passed_test_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(nixos_machine):\n    pass\n")
    words = arguments(CONTAINER, "--nixos-keep", "failed", str(tmp_path / "test_it.py"))
    variables = environment(PYTEST_NIXOS_AT_HAND=str(tmp_path))
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=variables, check=False)
    assert done.returncode == 0
    assert left_of(tmp_path) == []


def test_a_ci_job_keeps_the_directory_and_leaves_nothing_running(tmp_path: Path) -> None:
    done = kept_run(tmp_path, CONTAINER, CI="true", TMPDIR=str(tmp_path))
    assert "a CI job leaves nothing running" in done.stdout
    assert left_of(tmp_path) == []
    # Too long for the sockets of a machine, the test's own directory is not used.
    kept = next(line for line in done.stdout.splitlines() if ": kept /" in line)
    directory = Path(kept.split(": kept ")[1].split()[0])
    assert directory.is_dir()
    subprocess.run(["rm", "-rf", directory], check=True)


@BOTH
def test_the_debugger_keeps_the_machine_until_it_is_left(host: str, tmp_path: Path) -> None:
    (tmp_path / "test_fails.py").write_text(FAILS)
    seat = pexpect.spawn(
        sys.executable,
        arguments(host, "--pdb", str(tmp_path / "test_fails.py")),
        cwd=str(tmp_path),
        env=environment(PYTEST_NIXOS_AT_HAND=str(tmp_path)),
        timeout=LIMIT_S,
        dimensions=(40, 200),
        encoding="utf-8",
    )
    seat.expect_exact("(Pdb) ")
    # It answers within the debugger, and from another terminal.
    seat.sendline("p nixos_machine.run('cat /run/seen').stdout")
    seat.expect_exact("b'seen\\n'")
    (name,) = machines(tmp_path)
    assert command("run", name, "--", "cat /run/seen").stdout == "seen\n"
    seat.expect_exact("(Pdb) ")
    seat.sendline("q")
    left_s = time.monotonic()
    seat.expect(pexpect.EOF)
    assert time.monotonic() - left_s < QUICK_S
    seat.close()
    assert await_gone(tmp_path) == []


@BOTH
@pytest.mark.parametrize("where", ["command", "prompt"])
def test_ctrl_c_is_quick(host: str, where: str, tmp_path: Path) -> None:
    """While a command of the guest runs, and at the debugger's prompt."""
    text = FAILS if where == "prompt" else FAILS.replace('run("false")', 'run("echo; sleep 300")')
    (tmp_path / "test_it.py").write_text(
        text.replace("assert", "print('LOOK', flush=True); assert")
    )
    seat = pexpect.spawn(
        sys.executable,
        arguments(host, "-s", "--pdb" if where == "prompt" else "-v", str(tmp_path / "test_it.py")),
        cwd=str(tmp_path),
        env=environment(PYTEST_NIXOS_AT_HAND=str(tmp_path)),
        timeout=LIMIT_S,
        encoding="utf-8",
    )
    seat.expect_exact("(Pdb) " if where == "prompt" else "LOOK")
    time.sleep(1.0)
    begun_s = time.monotonic()
    if where == "prompt":
        seat.sendintr()  # pdb says so, and asks again
        seat.expect_exact("(Pdb) ")
        seat.sendeof()
    else:
        seat.sendintr()
    seat.expect(pexpect.EOF)
    took_s = time.monotonic() - begun_s
    seat.close()
    assert took_s < QUICK_S
    assert await_gone(tmp_path) == []
