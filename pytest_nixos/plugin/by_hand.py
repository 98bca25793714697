"""What ``pytest-nixos shell``, ``console``, ``run`` and ``ssh`` have pytest run: a machine as for any test, and
somebody's own commands on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from pytest_nixos.errors import MachineError
from pytest_nixos.local.process import find_tool
from pytest_nixos.local.text import printable
from pytest_nixos.machine.base import Machine
from pytest_nixos.machine.door.ssh_access import ssh_configuration_file
from pytest_nixos.machine.door.visitor import open_doors
from pytest_nixos.machine.guest_program import run_with_streams

__all__ = ["test_by_hand"]

# As the command line writes them: pytest_nixos/cli/by_hand.py.
_CONSOLE = "\0console"
_SSH = "\0ssh"
_GUEST_OUTPUT = 9
_POLL_S = 0.1
# As a shell says of a program that SIGPIPE has ended.
_NOBODY_READS = 128 + signal.SIGPIPE


def test_by_hand(nixos_machine: Machine) -> None:
    """Open a shell, show the console, have ssh enter, or run the command that the command line left, and leave how
    it ended.
    """
    answer = Path(os.environ["PYTEST_NIXOS_BY_HAND"])
    command = (answer / "command").read_text()
    if command == _CONSOLE:
        # Ctrl-C is how it ends, and no failure.
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            _show_console(nixos_machine)
        status = 0
    elif command.startswith(_SSH):
        status = _ssh(nixos_machine, json.loads(command.removeprefix(_SSH)))
    elif not command:
        status = nixos_machine.shell()
    else:
        status = _run(nixos_machine, command)
    (answer / "status").write_text(str(status))


def _run(machine: Machine, command: str) -> int:
    machine.before_shell()
    try:
        return run_with_streams(machine.transport, command, stdout=_GUEST_OUTPUT)
    except BrokenPipeError:
        return _NOBODY_READS


def _ssh(machine: Machine, words: Sequence[str]) -> int:
    """Have an ssh client of this machine enter, on the terminal and streams of who started it."""
    ssh = find_tool("ssh", remedy="install openssh's client; pytest-nixos shell works without")
    doors = [door for door in open_doors() if door.card.owner == os.getpid()]
    if not doors:
        raise MachineError(
            f"{machine.name}: the {machine.backend.name.value} backend has no door for ssh",
            remedy="a live host has its own ssh; run others as VM or container",
        )
    door = doors[-1]
    machine.before_shell()
    argv = [ssh, "-F", str(ssh_configuration_file(door)), door.card.name, *words]
    client = os.posix_spawn(
        ssh, argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, _GUEST_OUTPUT, 1)]
    )
    return os.waitstatus_to_exitcode(os.waitpid(client, 0)[1])


def _show_console(machine: Machine) -> None:
    """Print the console from its first line on, with seconds since the machine's start, until the
    machine ends.
    """
    shown = 0
    while True:
        alive, begun = machine.running.is_alive(), machine.console.count
        lines = machine.console.since(shown)
        # Lines that came meanwhile are shown; of those left out none is waited for.
        shown = max(shown + len(lines), begun)
        text = "".join(f"{line.at_s:9.3f}  {printable(line.text)}\n" for line in lines)
        os.write(_GUEST_OUTPUT, text.encode())
        if not alive:
            return
        time.sleep(_POLL_S)
