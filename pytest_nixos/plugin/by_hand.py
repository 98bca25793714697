"""What ``pytest-nixos shell``, ``console`` and ``run`` have pytest run: a machine as for any test, and
somebody's own commands on it.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from pytest_nixos.local.text import printable
from pytest_nixos.machine.base import Machine

__all__ = ["test_by_hand"]

# As the command line writes them: pytest_nixos/cli/by_hand.py.
_CONSOLE = "\0console"
_GUEST_OUTPUT = 9
_POLL_S = 0.1


def test_by_hand(nixos_machine: Machine) -> None:
    """Open a shell, show the console, or run the command that the command line left, and leave how
    it ended.
    """
    answer = Path(os.environ["PYTEST_NIXOS_BY_HAND"])
    command = (answer / "command").read_text()
    if command == _CONSOLE:
        # Ctrl-C is how it ends, and no failure.
        with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
            _show_console(nixos_machine)
        status = 0
    elif not command:
        status = nixos_machine.shell()
    else:
        result = nixos_machine.run(command, timeout_s=float("inf"))
        (answer / "stdout").write_bytes(result.stdout)
        (answer / "stderr").write_bytes(result.stderr)
        status = result.exit_status
    (answer / "status").write_text(str(status))


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
