"""Runs as a test beside the machine: more machines of its host, how soon each answers and what
they weigh.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_nixos.errors import NixosError
from pytest_nixos.plugin.machines.launch import Launch
from pytest_nixos.plugin.stash import PROGRESS, SESSION

SIZES = (1, 2) if os.environ.get("PYTEST_NIXOS_BENCH_QUICK") else (1, 4, 8, 16)


def test_clones(nixos_machine: Any, request: pytest.FixtureRequest) -> None:
    nixos_machine.run("true")
    config = request.config
    session, progress = config.stash[SESSION], config.stash[PROGRESS]
    (key,) = session.host_keys
    starts_s: list[float] = []
    memory_mib: dict[int, float] = {1: _memory_mib()}
    refused = ""
    with ExitStack() as stack:
        for number in range(2, max(SIZES) + 1):
            started_s = time.monotonic()
            try:
                clone = stack.enter_context(Launch(session, key, progress=progress, config=config))
            except NixosError as err:
                refused = str(err)
                break
            assert clone.run("true").succeeded
            starts_s.append(time.monotonic() - started_s)
            if number in SIZES:
                memory_mib[number] = _memory_mib()
    Path(os.environ["PYTEST_NIXOS_BENCH_OUT"]).write_text(
        json.dumps({"starts_s": starts_s, "memory_mib": memory_mib, "refused": refused})
    )


def _memory_mib() -> float:
    """Add up the proportional set sizes of this process's QEMUs."""
    total_kib = 0
    for pid in _descendants(os.getpid()):
        try:
            if b"qemu-system" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                continue
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kib += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kib / 1024


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found
