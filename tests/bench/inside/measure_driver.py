"""Runs as a test beside a node of a NixOS test: commands over our channel, timed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def test_commands(nixos_machine: Any) -> None:
    measured: dict[str, list[float]] = {}
    for command, count in json.loads(os.environ["PYTEST_NIXOS_BENCH_COMMANDS"]).items():
        taken = measured[command] = []
        for _ in range(count):
            before_s = time.monotonic()
            assert nixos_machine.run(command).succeeded
            taken.append((time.monotonic() - before_s) * 1000)
    Path(os.environ["PYTEST_NIXOS_BENCH_OUT"]).write_text(json.dumps(measured))
