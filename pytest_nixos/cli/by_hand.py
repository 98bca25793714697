"""``pytest-nixos shell``, ``console`` and ``run``: a host's machine at hand, started as for a test, or
one that runs already.

What starts one has pytest do so, so that snapshots, sandbox, limits and the way down are those of
any run, and so are the options and the ini file of the project.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pytest_nixos.cli.command import CommandEnd, Commands
from pytest_nixos.errors import SettingsError
from pytest_nixos.local.run_signals import RunSignals

__all__ = ["add", "names_host", "ssh_in_new_machine"]

#: Stands for a command where the console is wanted; bash text holds no NUL.
CONSOLE = "\0console"
#: Stands before ssh's own words, as JSON, where ssh is wanted.
SSH = "\0ssh"
#: Descriptor of what the guest says as it says it.
GUEST_OUTPUT = 9
_ITEM = "pytest_nixos.plugin.by_hand"
_QUIET = ("-qq", "-s", "--no-header", "-n", "0", "-p", "no:cacheprovider")


def add(commands: Commands) -> None:
    """Declare the commands."""
    shell = commands.add_parser("shell", help="open a root shell in a host's machine")
    shell.set_defaults(command=_shell)
    console = commands.add_parser("console", help="show a host's console, and go on showing it")
    console.set_defaults(command=_console)
    run = commands.add_parser("run", help="run a command as root in a host's machine")
    run.set_defaults(command=_run, behind=())
    for parser in (shell, console, run):
        running = "" if parser is console else "|NAME"
        parser.add_argument("host", metavar=f"REF#HOST{running}")
        parser.add_argument(
            "arguments",
            nargs=argparse.REMAINDER,
            metavar="...",
            help="options of pytest, as --nixos-backend" + (" -- COMMAND" if parser is run else ""),
        )


def _shell(options: argparse.Namespace) -> Iterator[str]:
    if names_host(options.host):
        raise CommandEnd(_on_machine(options.host, options.arguments, ""))
    from pytest_nixos.machine.door.visitor import find_door  # pytest loads it else
    from pytest_nixos.machine.terminal import attach

    raise CommandEnd(attach(find_door(options.host)))
    yield  # a generator, as every command


def _console(options: argparse.Namespace) -> Iterator[str]:
    raise CommandEnd(_on_machine(options.host, options.arguments, CONSOLE))
    yield  # a generator, as every command


def _run(options: argparse.Namespace) -> Iterator[str]:
    words: Sequence[str] = options.behind
    if not words:
        raise SettingsError(
            "run: no command",
            remedy="write it behind two dashes: pytest-nixos run .#web -- systemctl --failed",
        )
    # One word is bash text, several are a program and its arguments, as for ssh's users.
    command = words[0] if len(words) == 1 else shlex.join(words)
    if names_host(options.host):
        raise CommandEnd(_on_machine(options.host, options.arguments, command))
    from pytest_nixos.machine.door.visitor import find_door
    from pytest_nixos.machine.guest_program import run_with_streams

    raise CommandEnd(run_with_streams(find_door(options.host), command, stdout=1))
    yield  # a generator, as every command


def ssh_in_new_machine(host: str, arguments: Sequence[str], command: Sequence[str]) -> int:
    """Start a host's machine, have ssh enter it, and return ssh's exit status.

    :param arguments: options of pytest.
    :param command: words for ssh, none for a shell.
    """
    return _on_machine(host, arguments, SSH + json.dumps(list(command)))


def names_host(text: str) -> bool:
    """Whether `text` is a host of a flake, and no name of a running machine."""
    ref, _, name = text.partition("#")
    if ref and name.replace("-", "").isalnum() and name != "homeConfigurations":
        return True  # most are: pytest parses it, and its process loads what that takes
    from pytest_nixos.nix.command.refs import HostSelection

    return HostSelection.parse(text, cwd=Path.cwd()).host is not None


def _on_machine(host: str, arguments: Sequence[str], command: str) -> int:
    """Return the command's exit status, or pytest's where there was no machine.

    :param command: bash text, ``""`` for a shell, :data:`CONSOLE` for the console, :data:`SSH` and
        ssh's words for ssh.
    """
    if not names_host(host):
        raise SettingsError(f"{host}: names no host", remedy="write REF#HOST")
    item = importlib.util.find_spec(_ITEM)
    assert item is not None
    assert item.origin is not None
    with tempfile.TemporaryDirectory(prefix="nixos-by-hand-") as directory:
        answer = Path(directory)
        (answer / "command").write_text(command)
        status = _spawned(
            [
                *(sys.executable, "-m", "pytest", *_QUIET, "--nixos-flake", host),
                *("--nixos-suite", "none", *arguments, item.origin),
            ],
            {**os.environ, "PYTEST_NIXOS_BY_HAND": directory},
        )
        if (answer / "status").is_file():
            return int((answer / "status").read_text())
        return status


def _spawned(argv: Sequence[str], environment: dict[str, str]) -> int:
    """Run a program on this terminal, what it prints on standard error: standard output is the
    guest's, which the program has as another descriptor.
    """
    to_stderr = [(os.POSIX_SPAWN_DUP2, 1, GUEST_OUTPUT), (os.POSIX_SPAWN_DUP2, 2, 1)]
    with RunSignals() as signals:
        signals.run = os.posix_spawn(argv[0], list(argv), environment, file_actions=to_stderr)
        for number in signals.came:  # just before it was there
            os.kill(signals.run, number)
        status = os.waitstatus_to_exitcode(os.waitpid(signals.run, 0)[1])
        return status if status >= 0 else 128 - status  # by a signal, as a shell says it
