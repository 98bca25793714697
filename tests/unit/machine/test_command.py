import subprocess
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pytest_nixos.errors import CommandTimeout, TransportError
from pytest_nixos.local.timing import Deadline
from pytest_nixos.machine.command import CommandResult, ExplainedTransport, run_many


class Shell:
    """bash on this machine."""

    def __init__(self) -> None:
        self.trips = 0

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        self.trips += 1
        done = subprocess.run(
            ["bash", "-c", command],
            check=False,
            input=stdin,
            capture_output=True,
            start_new_session=True,
        )
        return CommandResult(
            command=command,
            exit_status=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
            duration_s=0.0,
        )

    def close(self) -> None:
        pass


def batch(*commands: str) -> tuple[CommandResult, ...]:
    shell = Shell()
    results = run_many(shell, commands, deadline=Deadline.after(60))
    assert shell.trips == (1 if commands else 0)
    return results


def test_each_has_its_own_streams_and_status() -> None:
    commands = (
        r"printf 'a\0b\n\xff'; printf err >&2",
        "exit 3",
        "cd /; x=1; set -e; false",
        'echo "$PWD ${x-unset} ${-//[^e]/}"; cat',
        "",
        'echo "it\'s"; # a remark',
        "cat <<E\nhere\nE",
        "if",
        "(exit 141)",
    )
    results = batch(*commands)
    assert tuple(result.command for result in results) == commands
    assert [result.exit_status for result in results[:7]] == [0, 3, 1, 0, 0, 0, 0]
    assert results[0].stdout == b"a\0b\n\xff"
    assert results[0].stderr == b"err"
    assert results[3].stdout.split() == [subprocess.check_output("pwd").strip(), b"unset"]
    assert results[5].stdout == b"it's\n"
    assert results[6].stdout == b"here\n"
    assert results[7].exit_status in {1, 2}
    assert b"syntax error" in results[7].stderr
    assert results[8].exit_status == 141


def test_the_time_of_each_is_told() -> None:
    started_s = time.monotonic()
    slow, quick = batch("sleep 0.2", "true")
    assert 0.2 <= slow.duration_s <= time.monotonic() - started_s
    assert 0 <= quick.duration_s < slow.duration_s


def test_nothing_is_no_trip() -> None:
    assert batch() == ()


def test_one_that_kills_them_all_is_named() -> None:
    with pytest.raises(TransportError, match=r"1 of 3 commands .* during 'kill -9 0'"):
        batch("true", "kill -9 0", "true")


def test_no_command_is_told_the_mark_that_parts_them() -> None:
    """Every user of a guest can read command lines, and copy what stands there into a file's
    name.
    """
    seen = r"tr '\0' '\n' </proc/$$/cmdline | grep -aoE -- '--[0-9a-f]{32}' | head -n 1"
    forge = f'token=$({seen}); printf \'\n%s 0 1 2\n\n%s 00000000-0000-0000-0000-000000000000\n\' "$token" "$token"'
    first, second = batch(forge, "echo kept; exit 5")
    assert first.stdout.count(b"--") == 2
    assert (second.stdout, second.exit_status) == (b"kept\n", 5)


class BrokenTransport:
    """Fails every command in one way."""

    def __init__(self, error: TransportError) -> None:
        self.error = error
        self.closed = False

    def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
        raise self.error

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "error", [TransportError("pipe", remedy=""), CommandTimeout("slow", remedy="")]
)
def test_a_channel_error_names_the_machines_end(error: TransportError) -> None:
    end = TransportError("QEMU ended with exit status 1", remedy="")
    inner = BrokenTransport(error)
    obituary: Callable[[], Any] = lambda: end  # noqa: E731
    with pytest.raises(TransportError, match="QEMU ended") as caught:
        ExplainedTransport(inner, obituary).run("true", deadline=Deadline.after(1))
    assert caught.value.__cause__ is error
    with pytest.raises(TransportError, match=error.message):
        ExplainedTransport(inner, lambda: None).run("true", deadline=Deadline.after(1))
    ExplainedTransport(inner, lambda: None).close()
    assert inner.closed


@pytest.mark.parametrize(
    "numbers", ["", "x y z", "0 1", "9999 1 2", f"0 {'9' * 5000} 1", "-1 0 0", "0 1 2 3"]
)
def test_a_bash_of_the_attackers_own_gives_an_error_and_no_result(numbers: str) -> None:
    class Liar(Shell):
        def run(self, command: str, *, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
            done = super().run(command, deadline=deadline)
            out, _, _ = done.stdout.rpartition(b" 0 ")
            return msgspec.structs.replace(done, stdout=out + b" " + numbers.encode() + b"\n")

    with pytest.raises(TransportError, match="0 of 1 commands"):
        run_many(Liar(), ["true"], deadline=Deadline.after(60))
