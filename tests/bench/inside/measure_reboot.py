"""Runs as a test beside the machine: how long it takes to reboot it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def test_reboot(nixos_machine: Any) -> None:
    reboots_s: list[float] = []
    for _ in range(int(os.environ["PYTEST_NIXOS_BENCH_RUNS"])):
        nixos_machine.run("true")
        started_s = time.monotonic()
        nixos_machine.power_off(orderly=True)
        nixos_machine.power_on()
        assert nixos_machine.run("true").succeeded
        reboots_s.append(time.monotonic() - started_s)
    Path(os.environ["PYTEST_NIXOS_BENCH_OUT"]).write_text(json.dumps(reboots_s))
