"""The remote line of the ssh transport, run by real shells, and its answers, whole and in parts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_nixos.machine.ssh.backend import client_argv, master_argv
from pytest_nixos.machine.ssh.transport import Framed, parse_answer, remote_line

MARK = "0123456789abcdef"
SHELLS = [s for s in ("/bin/sh", "bash", "dash", "zsh", "fish", "mksh") if shutil.which(s)]


def ask(command: str, *, shell: str = "/bin/sh", stdin: bytes = b"") -> Framed:
    line = remote_line(MARK, len(command.encode()), ())
    done = subprocess.run(
        [shell, "-c", line], input=command.encode() + stdin, capture_output=True, check=False
    )
    return parse_answer(MARK, done.stdout, done.stderr)


@pytest.mark.parametrize("shell", SHELLS)
def test_any_login_shell_passes_the_line_on(shell: str) -> None:
    answer = ask("echo \"a 'b'\"; cat; echo err >&2; exit 3\n\n", shell=shell, stdin=b"in\0\n")
    assert (answer.exit_status, answer.stdout, answer.stderr) == (3, b"a 'b'\nin\0\n", b"err\n")
    assert answer.group > 0


def test_the_line_has_nothing_that_shells_disagree_on() -> None:
    quoted = remote_line(MARK, 5, ("sudo", "-n", "--")).partition("'")[2].rpartition("'")[0]
    assert quoted
    assert not set(quoted) & set("'\\!\n")


def test_a_broken_command_is_bashs_own_error() -> None:
    assert ask("if").exit_status == 2
    assert ask("no-such-program-here").exit_status == 127


def test_a_long_command_is_no_argument() -> None:
    answer = ask(f"x={'a' * 200_000}; echo ${{#x}}; exit 4")
    assert (answer.exit_status, answer.stdout, answer.stderr) == (4, b"200000\n", b"")


@pytest.mark.parametrize(
    ("stdout", "stderr", "expected"),
    [
        (b"", b"", Framed(group=0, exit_status=None, stdout=b"", stderr=b"")),
        (
            b"motd\n0123456789abcdef\npart",
            b"rc noise\n0123456789abcdef 77\nwarn",
            Framed(group=77, exit_status=None, stdout=b"part", stderr=b"warn"),
        ),
        (
            b"0123456789abcdef\nno newline0123456789abcdef\n",
            b"0123456789abcdef 77\n0123456789abcdef 255\n",
            Framed(group=77, exit_status=255, stdout=b"no newline", stderr=b""),
        ),
        (
            b"0123456789abcdef\nout0123456789abcdef\nfrom the background",
            b"0123456789abcdef 77\nerr0123456789abcdef 0\nfrom the background",
            Framed(group=77, exit_status=0, stdout=b"out", stderr=b"err"),
        ),
        (
            b"0123456789abcdef\nout",
            b"0123456789abcdef 77\n0123456789abcdef 0\n",
            Framed(group=77, exit_status=None, stdout=b"out", stderr=b""),
        ),
    ],
)
def test_answers_are_cut_out_of_what_has_come(
    stdout: bytes, stderr: bytes, expected: Framed
) -> None:
    assert parse_answer(MARK, stdout, stderr) == expected


def test_clients_never_connect_by_themselves() -> None:
    argv = client_argv("ssh", (), Path("/r/ssh"), "root@web")
    assert argv[-2:] == ["--", "root@web"]
    assert {"-oControlMaster=no", "-oProxyCommand=false", "-oBatchMode=yes"} <= set(argv)


def test_host_keys_stay_the_users_business() -> None:
    argv = master_argv("ssh", ("-F", "c"), Path("/r%h/ssh"), "web")
    assert not [word for word in argv if "HostKey" in word or "KnownHosts" in word]
    assert "-oControlPath=/r%%h/ssh" in argv
