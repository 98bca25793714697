"""The sandbox's own process 1, apart from what :mod:`tests.unit.machine.vm.test_backend` tries
from inside.
"""

from __future__ import annotations

import subprocess
import sys

# Nobody else holds the other end: the parent was killed before the kernel was asked.
ORPHAN = """
import os
from pytest_nixos.local.sandbox_program import Wanted, _first
held, holding = os.pipe()
_first(Wanted(), -1, held, holding)
"""


def test_process_1_whose_parent_is_gone_starts_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN], check=False, capture_output=True)
    assert done.returncode == 125, done.stderr
