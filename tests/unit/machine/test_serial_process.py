"""A process on its own terminal, with small real programs."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_nixos.errors import MachineError
from pytest_nixos.local.leftovers import end_marked_processes, marked_processes
from pytest_nixos.local.process import SubprocessRunner
from pytest_nixos.local.remove_tree import remove_tree
from pytest_nixos.local.timing import Deadline, poll
from pytest_nixos.machine.console import Console
from pytest_nixos.machine.disks.script import TEST_KEY
from pytest_nixos.machine.disks.unlock import answer_to
from pytest_nixos.machine.serial_process import LineReader, SerialProcess


@pytest.fixture
def console() -> Console:
    return Console()


@pytest.fixture
def shell(tmp_path: Path, console: Console) -> Iterator[list[SerialProcess]]:
    """Processes put here are stopped."""
    started: list[SerialProcess] = []
    yield started
    for process in started:
        process.stop(grace_s=0.2)


def start(
    script: str, tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> SerialProcess:
    env = {**os.environ, "PYTEST_NIXOS_TEST": str(tmp_path)}
    process = SerialProcess(("/bin/sh", "-c", script), env=env, cwd=tmp_path, console=console)
    shell.append(process)
    process.start()
    return process


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(console: Console, text: str) -> None:
    found = poll(
        lambda: True if any(text in line for line in console.tail(100)) else None,
        deadline=Deadline.after(60),
        interval_s=0.01,
    )
    assert found, console.tail(100)


def test_output_of_both_streams_becomes_lines(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    process = start(
        "tty >&2; pwd; printf '\\377odd\\n'; printf unfinished; exit 7", tmp_path, console, shell
    )
    assert process.wait_ended(5)
    assert console.tail()[0].startswith("/dev/pts/")
    assert console.tail()[1:] == (str(tmp_path), "\ufffdodd", "unfinished")
    assert process.exit_status == 7
    assert process.end_words == "with exit status 7"


def test_no_python_is_forked_beside_other_threads(
    tmp_path: Path, console: Console, shell: list[SerialProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang in the child, of which Python 3.12 and later warn in each run's summary."""
    monkeypatch.delattr(os, "forkpty")
    monkeypatch.delattr(os, "fork")
    process = start("echo here", tmp_path, console, shell)
    assert process.wait_ended(5)
    assert console.tail() == ("here",)


def test_its_terminal_is_its_own_and_does_not_echo(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    script = "echo here >/dev/tty; stty size; case $(stty -a) in *' -echo '*) echo silent;; esac"
    process = start(script, tmp_path, console, shell)
    assert process.wait_ended(5)
    assert console.tail() == ("here", "24 80", "silent")


def test_a_login_prompt_is_seen_while_it_waits(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    start("printf 'llm-host login: '; sleep 60", tmp_path, console, shell)
    wait_for(console, "llm-host login:")


def test_it_leads_a_session_of_its_own(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    process = start("sleep 60", tmp_path, console, shell)
    assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
    assert not process.has_ended
    assert process.end_words == "not yet"


def test_stopping_ends_the_whole_group_even_if_it_refuses(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    script = "trap '' TERM HUP; (echo child; exec sleep 60) & exec sleep 60"
    process = start(script, tmp_path, console, shell)
    wait_for(console, "child")
    members = marked_processes("PYTEST_NIXOS_TEST", str(tmp_path))
    assert len(members) >= 2
    process.stop(grace_s=0.2)
    assert not any(is_alive(pid) for pid in members)
    assert process.end_words == "by signal 9"


def test_a_kill_from_elsewhere_is_seen(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    process = start("sleep 60", tmp_path, console, shell)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait_ended(5)
    assert process.exit_status == -9
    process.stop(grace_s=0.2)


def test_a_child_that_keeps_the_terminal_does_not_hide_the_end(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    process = start("trap '' HUP; sleep 60 & exit 3", tmp_path, console, shell)
    assert process.wait_ended(5)
    process.stop(grace_s=0.5)
    assert not marked_processes("PYTEST_NIXOS_TEST", str(tmp_path))


def test_it_outlives_the_thread_that_asked_for_it(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    thread = threading.Thread(target=lambda: start("sleep 60", tmp_path, console, shell))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert not shell[0].has_ended


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, sys, time
        from pathlib import Path
        from pytest_nixos.machine.console import Console
        from pytest_nixos.machine.serial_process import SerialProcess
        process = SerialProcess(("/bin/sh", "-c", "trap '' HUP TERM; echo; exec sleep 60"),
                                env=dict(os.environ), cwd=Path.cwd(), console=(console := Console()))
        process.start()
        while not console.lines:
            time.sleep(0.01)
        print(process.pid, flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    ended = SubprocessRunner().run((sys.executable, "-c", program), deadline=Deadline.after(60))
    pid = int(ended.stdout_text)
    assert poll(
        lambda: None if is_alive(pid) else True, deadline=Deadline.after(60), interval_s=0.02
    )


def test_a_program_that_cannot_run_is_told(tmp_path: Path, console: Console) -> None:
    process = SerialProcess((str(tmp_path / "absent"),), env={}, cwd=tmp_path, console=console)
    with pytest.raises(MachineError, match="cannot be started"):
        process.start()
    process.stop(grace_s=0.1)


def test_a_daemon_that_left_its_group_is_found_by_its_environment(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    process = start(
        "setsid sh -c 'trap \"\" TERM; exec sleep 60' & sleep 0.2",
        tmp_path,
        console,
        shell,
    )
    process.wait_ended(5)
    process.stop(grace_s=0.1)
    assert marked_processes("PYTEST_NIXOS_TEST", str(tmp_path))
    end_marked_processes("PYTEST_NIXOS_TEST", str(tmp_path), grace_s=0.2)
    assert not marked_processes("PYTEST_NIXOS_TEST", str(tmp_path))


def test_a_tree_is_removed_and_what_its_links_point_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").touch()
    (tmp_path / "tree" / "link").symlink_to(outside)
    (tmp_path / "tree" / "deep").chmod(0o500)
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert outside.stat().st_mode & 0o777 == 0o500
    remove_tree(tmp_path / "absent")


def test_a_prompt_waits_though_others_write_behind_it(console: Console) -> None:
    prompt = "Please enter passphrase for disk data: (press TAB for no echo)"
    reader = LineReader(console)
    reader.feed(f"\x1b[0;1;39m{prompt} \x1b[0m[  108.6] usb 1-1: new device\r\n".encode())
    assert reader.idle() == prompt
    assert reader.idle() == ""
    reader.feed(f"{prompt} ".encode())
    assert reader.idle() == prompt
    # What is typed shows, and is no second question.
    reader.feed(b"********\r\n")
    reader.feed(f"{prompt} ***\r\n{prompt} \r\n".encode())
    assert reader.idle() == ""


def test_what_a_prompt_asks_for_is_typed_once_and_others_are_left_alone(
    tmp_path: Path, console: Console, shell: list[SerialProcess]
) -> None:
    script = (
        "stty -echo; printf 'Passphrase for /dev/disk/by-uuid/1: '; read -r a; echo \"got $a\";"
        " printf 'Please enter passphrase for disk QEMU (root): (press TAB for no echo) '; read -r b;"
        " echo \"and $b\"; printf 'Please enter passphrase or recovery key for disk QEMU (data): '; read -r c;"
        " echo \"and $c\"; printf 'login: '; sleep 0.6; echo; echo end"
    )
    process = SerialProcess(
        ("/bin/sh", "-c", script),
        env=dict(os.environ),
        cwd=tmp_path,
        console=console,
        answer=answer_to,
    )
    shell.append(process)
    process.start()
    wait_for(console, "end")
    lines = [line.text for line in console.lines]
    assert [line for line in lines if line.startswith(("got", "and"))] == [
        f"got {TEST_KEY}",
        f"and {TEST_KEY}",
        f"and {TEST_KEY}",
    ]
    assert [line for line in lines if line][-2:] == ["login:", "end"]
