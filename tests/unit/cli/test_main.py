"""What ``python -m pytest_nixos`` needs."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_line_loads_no_pytest() -> None:
    program = (
        "import sys, pytest_nixos.cli.main;"
        "print(*sorted({'pytest', '_pytest', 'pytest_nixos.plugin'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""
