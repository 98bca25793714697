"""``pytest-nixos run`` and ``shell``, and a test that stops in a shell: on a real container."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.machine.test_example_flake import EXAMPLE, OVERRIDES

COMMAND = Path(sys.prefix) / "bin" / "pytest-nixos"
HOST = f"{EXAMPLE}#container-host"
WORDS = [w for name, ref in OVERRIDES.items() for w in ("--nixos-override-input", name, ref)]
LIMIT_S = 300
# As NixOS sets it, or bash alone.
PROMPT = r"root@[^\n]*# |bash-[\d.]+# "

pytestmark = [
    pytest.mark.skipif(not OVERRIDES, reason="no offline nixpkgs: run ./dev test"),
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "run", HOST, *WORDS, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[pexpect.spawn[str]]:
    """Somebody before a terminal of 33 rows, at a shell in the guest."""
    seat = pexpect.spawn(
        str(COMMAND),
        ["shell", HOST, *WORDS],
        cwd=str(tmp_path),
        timeout=LIMIT_S,
        dimensions=(33, 120),
        encoding="utf-8",
    )
    seat.sendline("ahead=typed")
    seat.expect(PROMPT)
    yield seat
    seat.close(force=True)


def test_a_command_runs_and_its_streams_and_its_ending_are_ours(tmp_path: Path) -> None:
    given = os.urandom(300_000)
    done = subprocess.run(
        [COMMAND, "run", HOST, *WORDS, "--", "hostname; echo trouble >&2; cat; exit 3"],
        cwd=tmp_path,
        input=given,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, b"container-host\n" + given)
    assert b"trouble\n" in done.stderr


def test_words_stay_words(tmp_path: Path) -> None:
    done = run("--", "printf", "%s|", "a b", "$HOME", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "a b|$HOME|")


def test_without_a_command_it_says_how_to_write_one(tmp_path: Path) -> None:
    done = run(cwd=tmp_path)
    assert done.returncode == 4
    assert "behind two dashes" in done.stderr


def test_a_machine_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "run", f"{EXAMPLE}#nobody", *WORDS, "--", "true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 4
    assert "#nobody: no such host" in done.stderr
    assert done.stdout == ""


def test_a_shell_has_a_terminal_of_its_own(seat: pexpect.spawn[str]) -> None:
    seat.sendline("stty size; export KEPT=here; cd /etc")
    seat.expect_exact("33 120")
    seat.sendline("echo $KEPT $PWD $((40 + 2)) $ahead")
    seat.expect_exact("here /etc 42 typed")
    # A key, not a line: it ends what runs, and not the session.
    seat.sendline("sleep 600")
    seat.expect_exact("sleep 600")
    seat.sendcontrol("c")
    seat.sendline("echo still $((1 + 1))")
    seat.expect_exact("still 2")
    # What floods the terminal waits for it, and is ended as soon as by a terminal of one's own.
    seat.sendline("yes")
    seat.expect_exact("y\r\ny\r\n")
    time.sleep(4)
    seat.sendcontrol("c")
    seat.sendline("echo quiet $((1 + 1))")
    seat.expect_exact("quiet 2")
    assert len(str(seat.before)) < 2_000_000
    seat.sendline("exit 7")
    seat.expect(pexpect.EOF)
    seat.close()
    assert seat.exitstatus == 7


def test_a_shell_that_hangs_is_left_behind(seat: pexpect.spawn[str]) -> None:
    seat.sendline("stty -isig; sleep 600")
    seat.expect_exact("sleep 600")
    seat.sendcontrol("]")
    seat.expect(pexpect.EOF)
    seat.close()
    assert seat.exitstatus == 0


def test_the_console_is_shown_from_its_first_line_until_ctrl_c(tmp_path: Path) -> None:
    words = ["console", HOST, *WORDS]
    seat = pexpect.spawn(
        str(COMMAND),
        words,
        cwd=str(tmp_path),
        timeout=LIMIT_S,
        encoding="utf-8",
        dimensions=(24, 200),
    )
    seat.expect(r" \d\.\d{3}  [^\r\n]*Welcome to")
    seat.sendintr()
    seat.expect(pexpect.EOF)
    seat.close()
    assert seat.exitstatus == 0
    assert "Traceback" not in str(seat.before)


def test_a_test_stops_in_a_shell_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_it(nixos_machine):\n"
        "    nixos_machine.breakpoint()\n"
        "    assert nixos_machine.run('cat /run/seen').stdout == b'yes\\n'\n"
        "    # What left the terminal ends with the shell too.\n"
        "    assert nixos_machine.run('pgrep -fx \"sleep 4324\"; ls -d /run/pytest-nixos-terminal.*').stdout == b''\n"
    )
    seat = pexpect.spawn(
        sys.executable,
        ["-m", "pytest", "-q", "--nixos-flake", HOST, *WORDS, "test_it.py"],
        cwd=str(tmp_path),
        timeout=LIMIT_S,
        encoding="utf-8",
    )
    seat.expect(PROMPT)
    seat.sendline("setsid -f sleep 4324; echo yes >/run/seen; exit")
    seat.expect_exact("1 passed")
    seat.expect(pexpect.EOF)
    seat.close()
    assert seat.exitstatus == 0


def test_without_a_terminal_there_is_no_shell(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "shell", HOST, *WORDS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        start_new_session=True,
    )
    assert done.returncode != 0
    assert "no terminal to open a shell on" in done.stdout + done.stderr
