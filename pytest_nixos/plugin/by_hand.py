"""What ``pytest-nixos shell`` and ``pytest-nixos run`` have pytest run: a machine as for any test,
and somebody's own commands on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pytest_nixos.machine.base import Machine

__all__ = ["test_by_hand"]


def test_by_hand(nixos_machine: Machine) -> None:
    """Open a shell, or run the command that the command line left, and leave how it ended."""
    answer = Path(os.environ["PYTEST_NIXOS_BY_HAND"])
    command = (answer / "command").read_text()
    if not command:
        status = nixos_machine.shell()
    else:
        result = nixos_machine.run(command, timeout_s=float("inf"))
        (answer / "stdout").write_bytes(result.stdout)
        (answer / "stderr").write_bytes(result.stderr)
        status = result.exit_status
    (answer / "status").write_text(str(status))
